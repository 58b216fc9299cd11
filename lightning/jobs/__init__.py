"""Many jobs at once: the trainings of a sweep or an ablation, the images of a prediction."""
