"""Who does the work: job, run, driver, pool, workers, cores."""
