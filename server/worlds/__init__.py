"""Training worlds: soils, crops and weather the factory model learns in; none shares code with the judge."""
