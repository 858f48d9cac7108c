"""From a model, an attack and a batch of images to outcomes: the two engines, certificates, and what they spend."""
