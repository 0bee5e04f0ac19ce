//! The components from outside that the tasks need: one table, one row a component.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::cli::Pinned;
use crate::workshop::Workshop;
use crate::{envoy, postgres, toolchain};

/// What is needed, in the order in which it is looked for.
const TOOLS: &[Tool] = &[
    Tool {
        name: "Rust target",
        find: |workshop, _| toolchain::find(workshop),
    },
    Tool {
        name: "Envoy",
        find: |workshop, pinned| envoy::find(workshop, pinned.envoy.as_deref()),
    },
    Tool {
        name: "PostgreSQL",
        find: |workshop, _| postgres::find(workshop),
    },
];

struct Tool {
    name: &'static str,
    /// Finds the component, fetching it where that is possible; the error says what to do.
    find: fn(&Workshop, &Pinned) -> Result<Found>,
}

/// A component that is there and answers.
pub struct Found {
    /// Name and version.
    pub what: String,
    /// Its program or folder.
    pub path: PathBuf,
    /// The environment variable by which demo, tests and benchmark learn the path.
    pub variable: Option<&'static str>,
}

/// Finds every component. All that are missing are told at once.
pub fn find_all(workshop: &Workshop, pinned: &Pinned) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut n_missing = 0;
    for tool in TOOLS {
        match (tool.find)(workshop, pinned).with_context(|| tool.name) {
            Ok(component) => found.push(component),
            Err(error) => {
                n_missing += 1;
                eprintln!("error: {error:#}");
            }
        }
    }
    match n_missing {
        0 => Ok(found),
        1 => bail!("a component is missing"),
        n => bail!("{n} components are missing"),
    }
}
