"""Reports on studies: statistics, claims, tables, plots and documents."""
