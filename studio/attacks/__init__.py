"""Ways to disturb pictures: worst cases (attacks) and common ones (corruptions). Pictures are in [0, 1]."""
