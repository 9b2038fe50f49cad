"""The laboratory around FeINFN: studies, distributed trials, records, tables and figures."""
