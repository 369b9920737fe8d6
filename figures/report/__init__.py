"""The report: one page that holds everything, made of the figures and tables that are drawn and of the files beside this one."""
