"""The report: a single page, made from the drawn figures and tables and the files next to this one."""
