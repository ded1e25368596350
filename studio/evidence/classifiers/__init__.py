"""The recipe that methods for classifiers share: the same trained net, finetuned by each variant, then disturbed."""
