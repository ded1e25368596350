"""What the methods for image classifiers share: ways of tuning, the task, nullspaces. Pictures are in [0, 1]."""
