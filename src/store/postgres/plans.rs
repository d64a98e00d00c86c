//! The plans of the statements whose cost must not grow with the tables.
