"""The Lyapunov stability module: V, its gradient, and the projection."""
