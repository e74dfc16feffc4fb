"""The real rotator on a virtual clock: endpoints, sinks, clocks and replicas are simulated, one seed decides the rest."""
