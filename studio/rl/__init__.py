"""Reinforcement learning of diffusion models: stochastic sampling as a policy, rollouts, advantages, objectives."""
