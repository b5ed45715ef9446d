"""From the records of studies to tables, plots and pages."""
