//! What other nodes spent in the earlier parts of rolling windows, as the store said when it was
//! looked at.
//!
//! An earlier part takes no new calls, so what others may spend there does not rise once it is
//! over; it is looked at when its successor begins, and then now and then. This node reports of
//! the parts that it has spent from, and of no others.

use std::collections::HashMap;
use std::sync::Arc;

use tollmesh_budget::lease::Elsewhere;

use super::super::account::Account;
use super::super::store::{CellKey, Look};
use super::State;
use crate::ledger::budgets::SpendKey;

/// How long what was looked at holds while others may still spend there, in milliseconds; and when
/// a part has just begun, since their clocks may be behind ours.
const SOON_MS: u64 = 2_000;
/// The same where only calls are left that nothing was reserved for.
const LATER_MS: u64 = 10_000;
/// The same of a key that nobody uses.
const PARKED_MS: u64 = 600_000;
/// How far apart clocks of nodes are at most, in milliseconds, so that what is spent by the one
/// that is behind is seen soon.
const CLOCKS_APART_MS: i64 = 5_000;

/// What was found of the keys in use.
#[derive(Debug, Default)]
pub struct Elsewheres(HashMap<(Arc<str>, Arc<str>), Found>);

/// What was found of one key.
#[derive(Debug)]
struct Found {
    /// The first instant of the part that was the present one.
    present: i64,
    /// When the store was asked, on the clock of leases.
    asked_ms: u64,
    /// When it was last asked for all parts.
    whole_ms: u64,
    /// How long after that it is to be asked again, where somebody uses the key.
    again_ms: u64,
    /// What there was, by the part's first instant; parts without anything are left out.
    parts: HashMap<i64, Elsewhere>,
}

/// A part of a rolling window before the present one, over all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// Its first instant.
    pub start: i64,
    /// What was spent in it.
    pub spent: u64,
    /// What may be spent in it, or was, whichever is more.
    pub allocated: u64,
}

impl State {
    /// Whether it is known what may come of the earlier parts of the window that ends with the
    /// account's cell: only then anything can be given out of it.
    pub fn is_bounded(&self, account: &Account) -> bool {
        if !self.is_shared || account.budget.cell_ms().is_none() {
            return true;
        }
        let waits_until_ms = self.lives.waits_until_ms(&account.at.budget);
        self.found(account).is_some_and(|found| {
            found.present == account.cell.start && found.whole_ms >= waits_until_ms
        })
    }

    /// Whether the store is to be looked at for the account of a present part.
    pub(in super::super) fn is_look_due(&self, account: &Account, now_ms: u64) -> bool {
        if !self.is_shared || account.budget.cell_ms().is_none() {
            return false;
        }
        let Some(asked_ms) = account.looked_ms else {
            return true;
        };
        if let Some(found) = self.found(account).filter(|_| self.is_bounded(account)) {
            let again_ms = match account.is_parked(now_ms) && found.again_ms > SOON_MS {
                true => PARKED_MS,
                false => found.again_ms,
            };
            return now_ms >= found.asked_ms.saturating_add(again_ms);
        }
        // One that does not answer is asked again at its own pace, unless a call waits.
        let is_time = account.is_waited_for() || now_ms >= asked_ms.saturating_add(SOON_MS);
        is_time && now_ms >= self.lives.waits_until_ms(&account.at.budget)
    }

    /// The question for the earlier parts of that account's window: for those alone in which something
    /// may have changed, where it is not too long ago that all were looked at.
    pub fn look(&self, account: &Account, unix_ms: i64, now_ms: u64) -> Look {
        let waits_until_ms = self.lives.waits_until_ms(&account.at.budget);
        let known = self.found(account).filter(|found| {
            let again_ms = found.whole_ms.saturating_add(PARKED_MS);
            found.whole_ms >= waits_until_ms && now_ms < again_ms
        });
        let length = account.cell.end - account.cell.start;
        let longest = account.budget.policy.max_stream.as_millis();
        let ended_ms = unix_ms.saturating_sub(i64::try_from(longest).unwrap_or(i64::MAX));
        let may_differ = |start: &i64| {
            known.is_none_or(|known| {
                let part = known.parts.get(start);
                start + length >= known.present
                    || start + length > ended_ms
                    || part.is_some_and(|part| part.allocated > part.spent)
            })
        };
        let starts = account.budget.cells_before(account.cell.start);
        let cells = starts.filter(may_differ).map(|window_start_ms| CellKey {
            window_start_ms,
            ..account.cell_key()
        });
        Look {
            cells: cells.collect(),
        }
    }

    /// Takes what was found by that look.
    pub fn take_look(
        &mut self,
        at: &SpendKey,
        look: &Look,
        found: &[Elsewhere],
        sent_ms: u64,
        unix_ms: i64,
    ) {
        let wait_ms = found.iter().map(|part| part.wait_ms).max().unwrap_or(0);
        if wait_ms > 0 {
            self.lives
                .wait_until(&at.budget, sent_ms.saturating_add(wait_ms));
        }
        let Some(account) = self.accounts.get(at) else {
            return;
        };
        let starts: Vec<i64> = account.budget.cells_before(account.cell.start).collect();
        let place = (Arc::clone(&at.budget), Arc::clone(&at.key));
        let is_whole = look.cells.len() == starts.len();
        let before = self.elsewheres.0.remove(&place).filter(|_| !is_whole);
        let whole_ms = before.as_ref().map_or(sent_ms, |before| before.whole_ms);
        let mut parts = before.map(|before| before.parts).unwrap_or_default();
        parts.extend(
            look.cells
                .iter()
                .map(|cell| cell.window_start_ms)
                .zip(found.iter().copied()),
        );
        parts
            .retain(|start, part| starts.contains(start) && (part.allocated > 0 || part.spent > 0));
        let is_settled = parts.values().all(|part| part.allocated <= part.spent);
        let is_new = unix_ms < account.cell.start.saturating_add(CLOCKS_APART_MS);
        let found = Found {
            present: account.cell.start,
            asked_ms: sent_ms,
            whole_ms,
            again_ms: match is_settled && !is_new {
                true => LATER_MS,
                false => SOON_MS,
            },
            parts,
        };
        self.elsewheres.0.insert(place, found);
        self.judge(at);
    }

    /// The parts that count together with the account's, itself left out, the latest first.
    pub fn earlier<'s>(&'s self, account: &'s Account) -> impl Iterator<Item = Earlier> + 's {
        let found = self.found(account);
        let starts = self.parts_before(account, found).into_iter();
        starts.filter_map(move |start| {
            let at = SpendKey {
                window_ms: start,
                ..account.at.clone()
            };
            let own = self.accounts.get(&at);
            // What was looked at knows of all parts before the one that was present then.
            let others = match found.filter(|found| start < found.present) {
                Some(found) => found.parts.get(&start).copied().unwrap_or_default(),
                None => own.map(Account::elsewhere).unwrap_or_default(),
            };
            let (spent, allocated) =
                own.map_or((0, 0), |own| (own.holder.committed(), own.own_allocated()));
            let earlier = Earlier {
                start,
                spent: spent.saturating_add(others.spent),
                allocated: allocated.saturating_add(others.allocated),
            };
            (own.is_some() || earlier.allocated > 0 || earlier.spent > 0).then_some(earlier)
        })
    }

    /// The first instants of earlier parts of which anything is known.
    fn parts_before(&self, account: &Account, found: Option<&Found>) -> Vec<i64> {
        let budget = &account.budget;
        let window = budget.cell_ms().and(budget.window_at(account.cell.start));
        let Some(window) = window else {
            return Vec::new();
        };
        let place = (Arc::clone(&account.at.budget), Arc::clone(&account.at.key));
        let own = self.parts.get(&place).into_iter().flatten();
        let others = found.into_iter().flat_map(|found| found.parts.keys());
        let counts = |start: &i64| window.start <= *start && *start < account.cell.start;
        let mut starts: Vec<i64> = own.chain(others).copied().filter(counts).collect();
        starts.sort_unstable_by(|a, b| b.cmp(a));
        starts.dedup();
        starts
    }

    /// Notes that there is an account of that name.
    pub(super) fn note_part(&mut self, at: &SpendKey) {
        let place = (Arc::clone(&at.budget), Arc::clone(&at.key));
        self.parts.entry(place).or_default().push(at.window_ms);
    }

    /// Notes anew of which cells there are accounts.
    pub(super) fn note_parts(&mut self) {
        self.parts.clear();
        let all: Vec<SpendKey> = self.accounts.keys().cloned().collect();
        for at in &all {
            self.note_part(at);
        }
    }

    /// Whether others spent from the account's key in parts that count.
    pub(super) fn is_used_elsewhere(&self, account: &Account) -> bool {
        let is_used = |found: &Found| found.parts.values().any(|part| part.spent > 0);
        account.others_spent > 0 || self.found(account).is_some_and(is_used)
    }

    /// Forgets what was found of keys without an account.
    pub(super) fn forget_elsewhere(&mut self) {
        let used = self.accounts.keys();
        let used: std::collections::HashSet<(Arc<str>, Arc<str>)> = used
            .map(|at| (Arc::clone(&at.budget), Arc::clone(&at.key)))
            .collect();
        self.elsewheres.0.retain(|place, _| used.contains(place));
    }

    fn found(&self, account: &Account) -> Option<&Found> {
        let at = &account.at;
        let place = (Arc::clone(&at.budget), Arc::clone(&at.key));
        self.elsewheres.0.get(&place)
    }
}

#[cfg(test)]
mod tests {
    use tollmesh_budget::lease::{Cell, Marker, Report, Terms};

    use super::super::super::policies::{Budget, Policies};
    use super::*;
    use crate::config::budgets::parse;

    const NOON_MS: i64 = 1_800_000_000_000;
    /// A part of a day's window.
    const QUARTER_MS: i64 = 900_000;

    /// A store, and the time on all clocks.
    struct Mesh {
        cells: HashMap<CellKey, Cell>,
        marker: Marker,
        unix_ms: i64,
        n_looked_at: usize,
    }

    struct Node {
        name: &'static str,
        state: State,
        budget: Arc<Budget>,
    }

    impl Mesh {
        fn new() -> Mesh {
            Mesh {
                cells: HashMap::new(),
                marker: Marker::OLD,
                unix_ms: NOON_MS,
                n_looked_at: 0,
            }
        }

        fn now_ms(&self) -> u64 {
            (self.unix_ms - NOON_MS).unsigned_abs() + 1_000_000
        }

        /// Tells and asks all that is due, until nothing is. All questions leave before an answer
        /// comes.
        fn beat(&mut self, node: &mut Node) {
            let (unix_ms, now_ms) = (self.unix_ms, self.now_ms());
            node.state.turn(unix_ms, now_ms);
            loop {
                let due = node.state.due(unix_ms, now_ms);
                let looks = due.looks.iter().map(|at| {
                    let account = node.state.accounts.get_mut(at).unwrap();
                    account.looked_ms = Some(now_ms);
                    node.state.look(&node.state.accounts[at], unix_ms, now_ms)
                });
                let looks: Vec<Look> = looks.collect();
                let reports = due.accounts.iter().map(|at| node.report(at, self));
                let reports: Vec<(Report, Terms)> = reports.collect();
                for (at, (report, terms)) in due.accounts.iter().zip(reports) {
                    self.take(node, at, &report, &terms);
                }
                for (at, look) in due.looks.iter().zip(&looks) {
                    self.n_looked_at += look.cells.len();
                    let found = look.cells.iter().map(|cell| {
                        let cell = self.cells.get(cell);
                        let found = cell.map(|c| c.elsewhere(unix_ms.unsigned_abs(), node.name));
                        found.unwrap_or_default()
                    });
                    let found: Vec<Elsewhere> = found.collect();
                    node.state.take_look(at, look, &found, now_ms, unix_ms);
                }
                if !due.is_more {
                    return;
                }
            }
        }

        fn take(&mut self, node: &mut Node, at: &SpendKey, report: &Report, terms: &Terms) {
            let (unix_ms, now_ms) = (self.unix_ms, self.now_ms());
            let account = node.state.accounts.get_mut(at).unwrap();
            let cell = self.cells.entry(account.cell_key()).or_default();
            let store_ms = unix_ms.unsigned_abs();
            let reply = cell.sync(&mut self.marker, store_ms, node.name, report, terms);
            let wait_ms = reply.granting_from_ms.saturating_sub(reply.now_ms);
            if let Some(grant) = account.take(&reply, now_ms) {
                account.persisted(grant.granted);
            }
            account.answered();
            node.state.hear(&at.budget, reply.life, now_ms);
            if wait_ms > 0 {
                node.state.lives.wait_until(&at.budget, now_ms + wait_ms);
            }
        }
    }

    impl Node {
        fn new(name: &'static str, enforce: &str) -> Node {
            let text = format!(
                "[[budget]]\nname = \"b\"\nlimit = \"1000 requests\"\nwindow = \"rolling 24h\"\n\
                 enforce = \"{enforce}\""
            );
            let policies = Policies::new(parse("budgets.toml", &text).unwrap());
            let budget = Arc::clone(&policies.all[0]);
            let state = State {
                policies: Arc::new(policies),
                is_shared: true,
                ..State::default()
            };
            Node {
                name,
                state,
                budget,
            }
        }

        /// The present account.
        fn present(&mut self, mesh: &Mesh) -> &mut Account {
            let cell = self.budget.cell_at(mesh.unix_ms).unwrap();
            self.state
                .open(&self.budget, Vec::new(), cell, mesh.now_ms())
        }

        fn report(&mut self, at: &SpendKey, mesh: &Mesh) -> (Report, Terms) {
            let limit = self.state.limit(&self.state.accounts[at]);
            let seq = self.state.next_report();
            let account = self.state.accounts.get_mut(at).unwrap();
            let is_over = mesh.unix_ms >= account.cell.end;
            let report = account.report(mesh.now_ms(), seq, is_over);
            (report, account.terms(limit))
        }

        /// Asks until the store gives no more, and spends that.
        fn spend(&mut self, mesh: &mut Mesh, n: u64) -> u64 {
            for _ in 0..20 {
                self.present(mesh).wait_for(n);
                mesh.beat(self);
                mesh.unix_ms += 100;
            }
            let now_ms = mesh.now_ms();
            let account = self.present(mesh);
            let given = account.holder.left().min(n);
            account.charge(None, given.into(), 0);
            account.use_at(now_ms);
            given
        }

        fn spent(&mut self, mesh: &Mesh) -> u64 {
            let at = self.present(mesh).at.clone();
            self.state.spent(&self.state.accounts[&at])
        }
    }

    #[test]
    fn of_earlier_parts_only_those_are_looked_up_that_are_known() {
        let mut mesh = Mesh::new();
        let (mut a, mut b) = (Node::new("a", "cached"), Node::new("b", "cached"));
        let mut starts = Vec::new();
        for n_parts in [40, 60, 2] {
            a.present(&mesh).charge(None, 7, 0);
            mesh.beat(&mut a);
            starts.push(a.present(&mesh).cell.start);
            mesh.unix_ms += n_parts * QUARTER_MS;
        }
        for node in [&mut a, &mut b] {
            let at = node.present(&mesh).at.clone();
            mesh.beat(node);
            let account = &node.state.accounts[&at];
            let found = node.state.found(account);
            let parts = node.state.parts_before(account, found);
            let spent = node.state.earlier(account).map(|part| part.spent);
            assert_eq!(
                spent.filter(|n| *n > 0).collect::<Vec<_>>(),
                [7, 7],
                "{}",
                node.name
            );
            assert!(parts.len() < 6, "{}: {parts:?}", node.name);
            assert!(parts.starts_with(&[starts[2]]) && parts.contains(&starts[1]));
        }
    }

    #[test]
    fn what_others_took_at_the_end_of_a_part_counts_in_the_next() {
        let mut mesh = Mesh::new();
        let (mut a, mut b) = (Node::new("a", "strict"), Node::new("b", "strict"));
        assert_eq!(a.spend(&mut mesh, 1), 1);
        // This node asks nobody meanwhile.
        assert_eq!(b.spend(&mut mesh, 900), 900);
        mesh.unix_ms = NOON_MS + QUARTER_MS;
        assert_eq!(a.spend(&mut mesh, 900), 99);
        assert_eq!(b.spend(&mut mesh, 900), 0);
        mesh.unix_ms += 2_000;
        mesh.beat(&mut a);
        assert_eq!(a.spent(&mesh), 1_000);
    }

    #[test]
    fn a_node_that_comes_later_sees_what_others_spent_and_makes_no_accounts_of_it() {
        for enforce in ["cached", "observe"] {
            let mut mesh = Mesh::new();
            let (mut a, mut b) = (Node::new("a", enforce), Node::new("b", enforce));
            for n in [300, 20, 1] {
                a.present(&mesh).charge(None, n, 0);
                mesh.beat(&mut a);
                mesh.unix_ms += 5 * QUARTER_MS;
            }
            mesh.beat(&mut a);
            b.present(&mesh).charge(None, 2, 0);
            mesh.beat(&mut b);
            assert_eq!(b.spent(&mesh), 323);
            assert_eq!(b.state.accounts.len(), 1);
            // Though it calls no more, and until it counts no more.
            for (n_parts, spent) in [(1, 323), (79, 323), (1, 23), (5, 3), (5, 2)] {
                for _ in 0..n_parts {
                    mesh.unix_ms += QUARTER_MS;
                    mesh.beat(&mut b);
                }
                assert_eq!(b.spent(&mesh), spent, "{enforce}");
            }
        }
    }

    #[test]
    fn after_a_loss_earlier_parts_are_looked_at_once_all_have_told() {
        let mut mesh = Mesh::new();
        let (mut a, mut b) = (Node::new("a", "strict"), Node::new("b", "strict"));
        assert_eq!(b.spend(&mut mesh, 900), 900);
        mesh.beat(&mut b);
        mesh.unix_ms = NOON_MS + QUARTER_MS;
        mesh.beat(&mut b);
        mesh.unix_ms += 60_000;
        (mesh.cells, mesh.marker) = (HashMap::new(), Marker::default());
        // Nobody has told the store yet what was spent: a part of the limit is given.
        let lost_ms = mesh.unix_ms;
        while mesh.unix_ms < lost_ms + 40_000 {
            a.present(&mesh).wait_for(500);
            mesh.beat(&mut a);
            if mesh.unix_ms >= lost_ms + 12_000 {
                mesh.beat(&mut b);
            }
            mesh.unix_ms += 200;
        }
        assert_eq!(a.present(&mesh).holder.granted(), 100);
    }

    #[test]
    fn parts_in_which_nothing_changes_any_more_are_looked_at_seldom() {
        let mut mesh = Mesh::new();
        let (mut a, mut b) = (Node::new("a", "cached"), Node::new("b", "cached"));
        a.present(&mesh).charge(None, 300, 0);
        mesh.beat(&mut a);
        b.present(&mesh).charge(None, 2, 0);
        mesh.beat(&mut b);
        let mut looked_at = |mesh: &mut Mesh, ms: i64| {
            mesh.unix_ms += ms;
            mesh.n_looked_at = 0;
            let now_ms = mesh.now_ms();
            b.present(mesh).use_at(now_ms);
            mesh.beat(&mut b);
            (mesh.n_looked_at, b.spent(mesh))
        };
        // Those of the last hour, since its calls may take so long.
        assert_eq!(looked_at(&mut mesh, 10_000), (4, 302));
        assert_eq!(looked_at(&mut mesh, 9_000), (0, 302));
        assert_eq!(looked_at(&mut mesh, QUARTER_MS - 40_000), (95, 302));
        assert_eq!(
            looked_at(&mut mesh, 21_000),
            (4, 302),
            "another part begins"
        );
        // Somebody was away, and tells late what was spent long ago.
        let cell = a.budget.cell_at(mesh.unix_ms - 50 * QUARTER_MS).unwrap();
        let now_ms = mesh.now_ms();
        a.state
            .open(&a.budget, Vec::new(), cell, now_ms)
            .charge(None, 10, 0);
        mesh.beat(&mut a);
        assert_eq!(looked_at(&mut mesh, 20_000), (4, 302));
        assert_eq!(looked_at(&mut mesh, 600_000), (95, 312));
    }

    #[test]
    fn parts_of_which_nothing_came_are_forgotten() {
        let mut mesh = Mesh::new();
        let mut a = Node::new("a", "strict");
        assert_eq!(a.spend(&mut mesh, 10), 10);
        for n in 1..120 {
            mesh.unix_ms = NOON_MS + n * QUARTER_MS;
            for _ in 0..4 {
                mesh.beat(&mut a);
                mesh.unix_ms += 3_000;
            }
            a.state.forget(mesh.unix_ms, 0);
            assert!(
                a.state.accounts.len() <= 2,
                "{n}: {:?}",
                a.state.accounts.len()
            );
        }
        assert!(a.state.accounts.is_empty(), "nobody uses the key any more");
        assert!(a.state.elsewheres.0.is_empty());
        assert!(a.state.parts.is_empty());
    }
}
