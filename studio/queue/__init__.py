"""The queue of jobs, and the supervisor that keeps one worker a device. No torch."""
