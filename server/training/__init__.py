"""How the factory model is made: closed-loop seasons in the training worlds, TensorFlow, and an honest card."""
