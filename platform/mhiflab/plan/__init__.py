"""Plans: wanted trials against recorded runs, and the cost of the rest."""
