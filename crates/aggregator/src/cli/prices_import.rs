//! `tollmesh prices import`

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use tollmesh_pricing::Book;

use super::Outcome;
use super::say::say;
use crate::clock;
use crate::feed::{self, Aside, Kind, Proposal};
use crate::prices::PricesError;

/// Propose rows out of a list that another project publishes, as a diff to review.
///
/// The list is compared with the tables that ship. Models that these lack, and prices that differ,
/// become rows marked single-source; a differing price begins today, and rows that have ended stay
/// as they are. Numbers are taken by their digits. Nothing is written but the diff, on standard
/// output; what it leaves out is told on standard error. With --into, the files that it changes are
/// also written whole, as new files.
///
/// Example: tollmesh prices import --from litellm model_prices_and_context_window.json
#[derive(Debug, Args)]
pub struct Arguments {
    /// Whose list it is.
    #[arg(long, value_enum)]
    from: Kind,
    /// The list.
    file: PathBuf,
    /// Only this provider, by our name.
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Where changed files are written; files that are there already are left alone, and refused.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

/// Compares, and tells.
pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let (name, now) = (arguments.file.display(), clock::now());
    let text = std::fs::read_to_string(&arguments.file)
        .with_context(|| format!("{name}: cannot be read"))?;
    let feed = arguments
        .from
        .read(&text, now)
        .with_context(|| format!("{name}: not the list that --from names"))?;
    let (provider, url) = (arguments.provider.as_deref(), arguments.from.url());
    let proposal =
        feed::propose(feed, Book::shipped(), provider, url, now).map_err(PricesError::Invalid)?;
    let mut out = std::io::stdout().lock();
    for (diff, _) in proposal.files.values() {
        out.write_all(diff.as_bytes())?;
    }
    out.flush()?;
    if let Some(dir) = &arguments.into {
        write_new(dir, &proposal)?;
    }
    tell(&proposal);
    Ok(Outcome::Done)
}

/// Writes whole files where none are: all of them, or none.
fn write_new(dir: &Path, proposal: &Proposal) -> anyhow::Result<()> {
    let there = proposal.files.keys().find(|name| dir.join(name).exists());
    if let Some(name) = there {
        let file = dir.join(name);
        bail!("{}: is there already; name another folder", file.display());
    }
    std::fs::create_dir_all(dir).with_context(|| format!("{}: cannot be made", dir.display()))?;
    for (name, (_, text)) in &proposal.files {
        let path = dir.join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let mut file = match file {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                bail!("{}: is there already; name another folder", path.display())
            }
            file => file.with_context(|| format!("{}: cannot be written", path.display()))?,
        };
        file.write_all(text.as_bytes())
            .with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    Ok(())
}

fn tell(proposal: &Proposal) {
    let Proposal {
        n_new,
        n_changed,
        aside,
        files,
    } = proposal;
    let n_files = files.len();
    say(format_args!(
        "{n_new} models proposed, {n_changed} changed, in {n_files} files"
    ));
    let Aside {
        providers,
        keys,
        by_hand,
    } = aside;
    for line in by_hand {
        say(format_args!("by hand: {line}"));
    }
    for (name, n) in providers {
        say(format_args!(
            "no table of ours is for provider {name:?}: {n} models"
        ));
    }
    for (key, n) in keys {
        say(format_args!("unknown key {key:?}: in {n} models"));
    }
}
