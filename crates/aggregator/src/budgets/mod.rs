//! Budgets in force: what holds limits while calls go by.

pub mod store;
