"""The equilibrium: solvers for z = f(z, h), and the gradient of their solution."""
