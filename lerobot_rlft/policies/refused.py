"""Policy types of LeRobot whose sampler is no chain of Gaussians from normal noise, and why."""

REFUSED = {
    "evo1": "starts its sampler from uniform noise, not from normal noise: a chain of Gaussian steps, its "
    "densities and its regression targets are not those that the policy was trained on",
}
