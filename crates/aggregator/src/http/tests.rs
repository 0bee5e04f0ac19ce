//! Answers of the operator side, whole.
