//! One mesh for the tests of a file, which stops when the last of them is done with it.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::mesh::{Mesh, MeshBuilder};

/// A place for a mesh. What is in a `static` is never dropped, so it holds the mesh weakly: tests
/// that run side by side share it, and the last one takes it down.
#[derive(Debug, Default)]
pub struct Shared(Mutex<Weak<Mesh>>);

impl Shared {
    /// An empty place.
    pub const fn new() -> Shared {
        Shared(Mutex::new(Weak::new()))
    }

    /// The mesh that runs, or a new one; `None`, after a loud word, where a component is missing.
    pub fn mesh(&self, built: impl FnOnce() -> MeshBuilder) -> Option<Arc<Mesh>> {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mesh) = place.upgrade() {
            return Some(mesh);
        }
        let mesh = Arc::new(built().start()?);
        *place = Arc::downgrade(&mesh);
        Some(mesh)
    }
}
