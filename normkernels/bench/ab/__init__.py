"""The gate: two commits of one repository, measured in pairs of processes, and what their difference is."""
