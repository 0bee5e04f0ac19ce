//! The world of the model: nodes, messages between them and the store, and what goes wrong.

use super::dice::Dice;
use super::node::{CALL_MS_MAX, Node};
use super::{Backend, InMemory, Outcome, Scenario};
use crate::lease::{Refusal, Reply, Report, Terms, YOUNG_SHARE};

/// Long after 1970, as a store's clock is.
const START_MS: u64 = 1_800_000_000_000;
/// How many copies the store may fall back to.
const COPIES_MAX: usize = 3;
/// Steps between two copies.
const COPY_STEPS: usize = 7;
/// How long after a partition a node has been heard for certain, milliseconds: several beats, of which
/// one in ten is lost.
const HEARD_MS: u64 = 10_000;

/// Plays one seed of a scenario.
pub fn run<B: Backend>(seed: u64, n_steps: usize, scenario: &Scenario, backend: &mut B) -> Outcome {
    let mut world = World::new(seed, scenario, backend);
    for step in 0..n_steps {
        world.step(step);
        if world.outcome.broken_at_step.is_none() && world.is_beyond_bound() {
            world.outcome.broken_at_step = Some(step);
        }
    }
    world.become_quiet();
    world.outcome
}

struct World<'b, B: Backend> {
    dice: Dice,
    scenario: Scenario,
    backend: &'b mut B,
    twin: InMemory,
    terms: Terms,
    wants: Vec<u64>,
    amount_max: u64,
    nodes: Vec<Node>,
    now_ms: u64,
    reports: Vec<Sent<Report>>,
    replies: Vec<Sent<Reply>>,
    copies: Vec<(B::Copy, InMemory)>,
    /// What the store did not know of each node right after it lost data.
    unknown: Vec<u64>,
    outcome: Outcome,
}

/// A message on its way.
struct Sent<T> {
    node: usize,
    sent_ms: u64,
    arrives_ms: u64,
    message: T,
}

impl<'b, B: Backend> World<'b, B> {
    fn new(seed: u64, scenario: &Scenario, backend: &'b mut B) -> World<'b, B> {
        let mut dice = Dice::new(seed);
        let limit = dice.one_of(&[1_000, 20_000, 500_000]);
        let mut terms = Terms::new(limit, 4_102_444_800_000);
        terms.reclaim_after_ms = scenario.reclaim_after_ms;
        let mut wants = vec![0, limit / 100, limit / 20];
        let mut part_of_limit = 200;
        if !scenario.is_moderate {
            terms.min_slice = dice.one_of(&[1, limit / 200, limit]);
            wants = match dice.below(3) {
                0 => vec![0, limit / 100, limit / 10],
                1 => vec![limit / 3, limit],
                _ => vec![0, limit / 10, limit],
            };
            part_of_limit = dice.one_of(&[20, 100, 400]);
        }
        let n_nodes = dice.one_of(&[1, 2, 5, 9]);
        backend.empty();
        World {
            scenario: *scenario,
            backend,
            twin: InMemory::new(None),
            terms,
            wants,
            amount_max: (limit / part_of_limit).max(2),
            nodes: (0..n_nodes).map(Node::new).collect(),
            now_ms: START_MS,
            reports: Vec::new(),
            replies: Vec::new(),
            copies: Vec::new(),
            unknown: vec![0; n_nodes],
            dice,
            outcome: Outcome {
                limit,
                ..Outcome::default()
            },
        }
    }

    fn step(&mut self, step: usize) {
        self.now_ms += self.dice.within(1, 400);
        let now_ms = self.now_ms;
        self.deliver();
        for node in &mut self.nodes {
            node.settle(now_ms);
        }
        let caller = self.dice.below(self.nodes.len());
        let is_hungry = self.dice.happens(6_000) && self.call(caller);
        for node in 0..self.nodes.len() {
            if self.nodes[node].is_due(now_ms, is_hungry && node == caller) {
                self.report(node);
            }
        }
        self.go_wrong();
        if self.scenario.failovers > 0 && step.is_multiple_of(COPY_STEPS) {
            if self.copies.len() == COPIES_MAX {
                self.copies.remove(0);
            }
            self.copies.push((self.backend.copy(), self.twin.clone()));
        }
    }

    /// A call arrives at a node; whether that needs a grant.
    fn call(&mut self, node: usize) -> bool {
        let node = &mut self.nodes[node];
        if !node.is_up {
            return false;
        }
        let amount = self.dice.within(1, self.amount_max);
        let refusal = node.call(self.now_ms, amount, &mut self.dice);
        match refusal {
            None => self.outcome.n_admitted += 1,
            Some(_) => self.outcome.n_refused += 1,
        }
        refusal == Some(Refusal::NeedsGrant)
    }

    fn report(&mut self, number: usize) {
        let want_more = self.dice.one_of(&self.wants);
        let node = &mut self.nodes[number];
        let message = node.report(self.now_ms, want_more, &mut self.dice);
        let is_lost = self.now_ms < node.cut_until_ms || self.dice.happens(1_000);
        if !is_lost {
            self.send_report(number, message, 300);
        }
        if !is_lost && self.dice.happens(1_000) {
            self.send_report(number, message, 40_000);
        }
    }

    fn send_report(&mut self, node: usize, message: Report, latest_ms: u64) {
        let delay_ms = self.dice.within(1, latest_ms);
        self.reports.push(Sent {
            node,
            sent_ms: self.now_ms,
            arrives_ms: self.now_ms + delay_ms,
            message,
        });
    }

    fn deliver(&mut self) {
        let now_ms = self.now_ms;
        while let Some(n) = self
            .reports
            .iter()
            .position(|sent| sent.arrives_ms <= now_ms)
        {
            let sent = self.reports.swap_remove(n);
            self.store_takes(&sent);
        }
        while let Some(n) = self
            .replies
            .iter()
            .position(|sent| sent.arrives_ms <= now_ms)
        {
            let sent = self.replies.swap_remove(n);
            if now_ms >= self.nodes[sent.node].cut_until_ms {
                self.nodes[sent.node].take(&sent.message, sent.sent_ms, &mut self.dice);
            }
        }
    }

    fn store_takes(&mut self, sent: &Sent<Report>) {
        let name = self.nodes[sent.node].name.clone();
        let (now_ms, report) = (self.now_ms, &sent.message);
        let reply = self.backend.sync(now_ms, &name, report, &self.terms);
        let right = self.twin.sync(now_ms, &name, report, &self.terms);
        self.outcome.n_differing += u64::from(reply != right);
        let kept = report.claim.max(report.committed);
        if !right.is_stale && right.granted > kept {
            self.note_bound(&right);
        }
        if !self.dice.happens(1_000) {
            let latest_ms = if self.dice.happens(500) { 3_000 } else { 300 };
            let delay_ms = self.dice.within(1, latest_ms);
            self.replies.push(Sent {
                node: sent.node,
                sent_ms: sent.sent_ms,
                arrives_ms: now_ms + delay_ms,
                message: reply,
            });
        }
    }

    /// Whenever a right store grants, what is unknown to it and not held back may be overspent.
    fn note_bound(&mut self, right: &Reply) {
        if self.unknown.iter().all(|n| *n == 0) {
            return;
        }
        let mut unknown = 0;
        for n in 0..self.nodes.len() {
            let now_unknown = self
                .reach(n)
                .saturating_sub(self.twin.cell().allocated_to(&self.nodes[n].name));
            self.unknown[n] = self.unknown[n].min(now_unknown);
            unknown += self.unknown[n];
        }
        let young_until_ms = self.twin.marker().since_ms + self.terms.hold_ms;
        let limit = match right.now_ms < young_until_ms {
            true => self.terms.limit / YOUNG_SHARE,
            false => self.terms.limit,
        };
        let bound = (unknown + limit).saturating_sub(right.held_back + self.terms.limit);
        self.outcome.bound = self.outcome.bound.max(bound);
    }

    /// What a node may yet come to spend, with replies that are on their way.
    fn reach(&self, number: usize) -> u64 {
        let node = &self.nodes[number];
        let mine = self.replies.iter().filter(|sent| sent.node == number);
        let on_the_way = mine.map(|sent| sent.message.granted).max();
        match node.is_up {
            true => node.reach().max(on_the_way.unwrap_or(0)),
            false => node.reach(),
        }
    }

    fn go_wrong(&mut self) {
        let (now_ms, scenario) = (self.now_ms, self.scenario);
        let victim = self.dice.below(self.nodes.len());
        if self.dice.happens(scenario.crashes) && self.nodes[victim].is_up {
            self.nodes[victim].crash(now_ms);
        }
        if self.dice.happens(scenario.partitions) {
            let cut_ms = self.dice.within(5_000, 60_000);
            let node = &mut self.nodes[victim];
            // What is reclaimed presumes a longest partition: one after another would be longer.
            let is_heard = now_ms >= node.cut_until_ms.saturating_add(HEARD_MS);
            if scenario.reclaim_after_ms.is_none() || is_heard {
                node.cut_until_ms = now_ms + cut_ms;
            }
        }
        let n_up = self.nodes.iter().filter(|node| node.is_up).count();
        if self.dice.happens(scenario.deaths) && n_up > 1 {
            self.nodes[victim].is_up = false;
        }
        if self.dice.happens(scenario.floods) {
            self.backend.empty();
            self.twin.empty();
            self.note_loss();
        }
        if self.dice.happens(scenario.failovers) && !self.copies.is_empty() {
            let copy = self.dice.below(self.copies.len());
            let (backend, twin) = &self.copies[copy];
            self.backend.become_copy(backend);
            self.twin.become_copy(twin);
            self.note_loss();
        }
    }

    fn note_loss(&mut self) {
        for n in 0..self.nodes.len() {
            let known = self.twin.cell().allocated_to(&self.nodes[n].name);
            self.unknown[n] = self.reach(n).saturating_sub(known);
        }
    }

    fn is_beyond_bound(&mut self) -> bool {
        let spent: u64 = self.nodes.iter().map(Node::spent).sum();
        let overspent = spent.saturating_sub(self.terms.limit);
        self.outcome.overspent = self.outcome.overspent.max(overspent);
        overspent > self.outcome.bound
    }

    /// All calls end, the dead return, everybody reports and wants nothing.
    fn become_quiet(&mut self) {
        self.now_ms += 2 * CALL_MS_MAX;
        self.reports.clear();
        self.replies.clear();
        let mut last = Reply::default();
        for _ in 0..3 {
            for n in 0..self.nodes.len() {
                self.now_ms += 1;
                let node = &mut self.nodes[n];
                node.settle(self.now_ms);
                if !node.is_up {
                    node.crash(self.now_ms - CALL_MS_MAX);
                }
                let report = node.report(self.now_ms, 0, &mut self.dice);
                let name = node.name.clone();
                last = self.backend.sync(self.now_ms, &name, &report, &self.terms);
                let right = self.twin.sync(self.now_ms, &name, &report, &self.terms);
                self.outcome.n_differing += u64::from(last != right);
                node.take(&last, self.now_ms, &mut self.dice);
            }
        }
        self.outcome.ledgers = self.nodes.iter().map(|node| node.ledger).sum();
        self.outcome.stored = last.spent;
        self.outcome.allocated = last.allocated.saturating_sub(last.held_back);
    }
}
