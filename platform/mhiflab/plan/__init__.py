"""Plans: compare a study's trials with recorded runs, and forecast the cost of the rest."""
