"""The real rotator on a virtual clock: endpoints, sinks, clocks and replicas are simulated, a seed decides all."""
