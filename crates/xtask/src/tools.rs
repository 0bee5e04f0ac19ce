//! The components from outside that the tasks need: one table, one row a component.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::cli::Pinned;
use crate::workshop::Workshop;
use crate::{
    alertmanager, chromium, envoy, kubernetes, postgres, prometheus, redis, sdks, toolchain,
};

/// What is needed, in the order in which it is looked for.
const TOOLS: &[Tool] = &[
    Tool {
        name: "Rust target",
        of: Of::Everything,
        find: |workshop, _| toolchain::find(workshop),
    },
    Tool {
        name: "Envoy",
        of: Of::Everything,
        find: |workshop, pinned| envoy::find(workshop, pinned.envoy.as_deref()),
    },
    Tool {
        name: "PostgreSQL",
        of: Of::Tests,
        find: |workshop, _| postgres::find(workshop),
    },
    Tool {
        name: "Redis",
        of: Of::Tests,
        find: |workshop, _| redis::find(workshop),
    },
    Tool {
        name: "Prometheus",
        of: Of::Tests,
        find: |workshop, _| prometheus::find(workshop),
    },
    Tool {
        name: "Python SDKs",
        of: Of::Tests,
        find: |workshop, _| sdks::find(workshop),
    },
    Tool {
        name: "Alertmanager",
        of: Of::Tests,
        find: |workshop, _| alertmanager::find(workshop),
    },
    Tool {
        name: "kubectl",
        of: Of::Tests,
        find: |workshop, _| kubernetes::find_kustomize(workshop),
    },
    Tool {
        name: "Kubernetes' schemas",
        of: Of::Tests,
        find: |workshop, _| kubernetes::find_schemas(workshop),
    },
    Tool {
        name: "Chromium",
        of: Of::Tests,
        find: |workshop, _| chromium::find(workshop),
    },
];

struct Tool {
    name: &'static str,
    of: Of,
    /// Finds the component, fetching it where that is possible; the error says what to do.
    find: fn(&Workshop, &Pinned) -> Result<Found>,
}

/// What a component is needed for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// Nothing works without it.
    Everything,
    /// Some tests need it, and say aloud that they were skipped where it is missing.
    Tests,
}

/// Whom the components are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// The set-up, and tests under CI: a missing component is a failure.
    All,
    /// Tests at home: what only tests need is fetched, and goes without where that fails.
    Tests,
    /// Demo and measurements: what only tests need is not looked for.
    Running,
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

/// Finds every component that they need. All that are missing are told at once.
pub fn find_all(workshop: &Workshop, pinned: &Pinned, whom: For) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut n_missing = 0;
    let needed = |tool: &&Tool| tool.of == Of::Everything || whom != For::Running;
    for tool in TOOLS.iter().filter(needed) {
        match (tool.find)(workshop, pinned).with_context(|| tool.name) {
            Ok(component) => found.push(component),
            Err(error) if tool.of == Of::Tests && whom == For::Tests => {
                workshop.steps.warn(&format!("{error:#}"));
            }
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
