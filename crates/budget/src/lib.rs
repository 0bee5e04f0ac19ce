//! Budgets as pure arithmetic.
