//! Budgets in force: what holds limits while calls go by.

pub mod replay;
pub mod store;
