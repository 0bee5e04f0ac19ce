//! Budgets as pure arithmetic.
//!
//! What a policy says ([`Policy`]), which window an instant falls in ([`Window::containing`]), and
//! which tier a spend has reached ([`Policy::tier_at`]). Time comes in as an argument; nothing here
//! reads a clock, a file or a store, and nothing knows what a request is.

pub mod estimate;
pub mod guard;
pub mod lease;
pub mod limit;
pub mod policy;
pub mod window;

pub use estimate::{Bound, Facts};
pub use guard::{Bounds, Guard, Pace};
pub use limit::{Limit, LimitError};
pub use policy::{Action, Enforce, OnUnavailable, Policy, PolicyError, Tier};
pub use window::{Window, WindowError, WindowSpan};
