"""How a service's documents become those of the next version: once per database, with old replicas still up."""
