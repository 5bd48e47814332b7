"""Which chips and layouts are best? Exhaustive layouts inside, an evolving archive of chips outside, an Optuna study as the ledger."""
