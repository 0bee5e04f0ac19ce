//! What budgets would have done to the calls of the past.
//!
//! Calls pass in the order in which they began, each with what it really cost, so that the answer is
//! exact in what it knows: a strict budget lets a call pass where everything that it let pass before
//! and this call fit the limit; a cached one where what had *ended* by then had not reached the
//! tier. What nobody knows stays out: whether a refused app would have asked again, and by how much
//! a strict budget reserves more than a call turns out to cost.
//!
//! Budgets in force act together: what one refuses is charged to none. One that observes is looked
//! at by itself, as if it were cached.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tollmesh_budget::{Action, Enforce, Limit, Policy, Window};
use tollmesh_pricing::Book;
use tollmesh_usage::Bucket;
use tollmesh_wire::matching::{Match, Subject, replacement};
use tollmesh_wire::{Event, Outcome};

use super::amount::{amount, charged};
use super::model_names;
use super::worst::Worst;
use crate::charge::Bill;
use crate::money::{PicoSum, PicoUsd};
use crate::prices::{Prices, Tables};

/// A replay under way.
pub struct Replay<'p> {
    prices: &'p Prices,
    tables: Arc<Tables>,
    worst: Worst,
    courses: Vec<Course>,
}

/// What a budget would have done to the calls of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The budget's name.
    pub budget: String,
    /// The values of its `per` keys, by name.
    pub key: BTreeMap<String, String>,
    /// The budget's limit.
    pub limit: Limit,
    /// What happened, and would have.
    pub tally: Tally,
}

/// What happened to some calls, and what would have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls that left.
    pub requests: u64,
    /// Calls that were refused when they were made, and cost nothing.
    pub denied_then: u64,
    /// Of the calls that left, those that have no price: the dearest that they may have cost is
    /// charged.
    pub unpriced: u64,
    /// What they spent, in the limit's unit: pico-dollars, tokens or requests.
    pub spent: i128,
    /// What they cost.
    pub cost: PicoSum,
    /// Calls that would have been refused.
    pub denied: u64,
    /// Calls that would have been put off: they came faster than a tier lets pass.
    pub throttled: u64,
    /// Calls that a cheaper model would have answered.
    pub downgraded: u64,
    /// Calls whose answers would have been cut shorter.
    pub capped: u64,
    /// What all that would have saved.
    pub saved: PicoSum,
    /// Windows in which calls came; of a rolling budget, which has no begin, none.
    pub windows: u64,
    /// Windows in which calls would have been refused.
    pub windows_denied: u64,
    /// When the first call would have been refused.
    pub first_denied: Option<Timestamp>,
    /// The most that was really spent in a window, in the limit's unit.
    pub peak: i128,
}

/// One budget on its way through the calls.
struct Course {
    policy: Policy,
    matches: Match,
    /// The begin of the first window that is looked at from its begin.
    from: Timestamp,
    /// When the time that was asked for begins.
    told_from: Timestamp,
    accounts: HashMap<Vec<String>, Account>,
}

/// One key on its way.
#[derive(Default)]
struct Account {
    window: Option<(Timestamp, Timestamp)>,
    was_denied: bool,
    /// What really was spent in the window.
    real: i128,
    /// What would have been let pass in it.
    admitted: i128,
    /// Of that, what had ended.
    settled: i128,
    /// Calls that have not ended: end, begin, amount.
    under_way: BinaryHeap<Reverse<(i64, i64, i128)>>,
    /// Of a rolling budget, begin and amount of what is in its window: what was let pass, what of
    /// that has ended, and what really was.
    within: VecDeque<(i64, i128)>,
    settled_within: BinaryHeap<Reverse<(i64, i128)>>,
    really_within: VecDeque<(i64, i128)>,
    /// Begins of calls within the last second by pod, under a tier that throttles.
    last_second: HashMap<String, VecDeque<i64>>,
    tally: Tally,
}

/// A call with what it cost.
struct PastCall<'e> {
    event: &'e Event,
    at: Timestamp,
    cost: i128,
    is_priced: bool,
}

/// What a tier asks to be done to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Deed {
    Nothing,
    Refuse,
    PutOff,
    Downgrade(String),
    Cap(u64),
}

impl<'p> Replay<'p> {
    /// Budgets before the calls from that instant on. Unpriced and changed calls are priced by these
    /// tables.
    pub fn new(mut policies: Vec<Policy>, from: Timestamp, prices: &'p Prices) -> Replay<'p> {
        let tables = prices.tables();
        model_names::name(&mut policies, &tables.book);
        let courses = policies.into_iter().map(|policy| Course::new(policy, from));
        Replay {
            prices,
            tables,
            worst: Worst::default(),
            courses: courses.collect(),
        }
    }

    /// Where the calls must begin, so that every window is looked at from its begin.
    pub fn begins(&self) -> Option<Timestamp> {
        self.courses.iter().map(|course| course.from).min()
    }

    /// The next call, in the order of time, with what it cost where that is known.
    pub fn pass(&mut self, event: &Event, cost: Option<PicoUsd>) {
        let Ok(at) = Timestamp::from_millisecond(event.time.as_unix_ms()) else {
            return;
        };
        // A filter nearer to the provider tells the same call.
        if event.outcome == Outcome::Relayed {
            return;
        }
        let call = PastCall {
            event,
            at,
            cost: charged(&self.worst, self.prices, event, cost),
            is_priced: cost.is_some(),
        };
        let subject = Subject::from(event);
        let concerned =
            |course: &&mut Course| at >= course.from && course.matches.matches(&subject);
        let concerned = self.courses.iter_mut().filter(concerned);
        let (mut observing, mut in_force): (Vec<_>, Vec<_>) =
            concerned.partition(|course| course.policy.enforce == Enforce::Observe);
        for course in &mut observing {
            pass_all(std::slice::from_mut(course), &call, &self.tables.book);
        }
        pass_all(&mut in_force, &call, &self.tables.book);
    }

    /// What became of all calls, budget by budget, those keys first of which most would have been
    /// saved.
    pub fn finish(self) -> Vec<Replayed> {
        let courses = self.courses.into_iter();
        courses.flat_map(Course::finish).collect()
    }
}

/// Lets a call pass budgets that act together.
fn pass_all(courses: &mut [&mut Course], call: &PastCall<'_>, book: &Book) {
    if call.event.outcome == Outcome::Denied {
        for course in courses {
            course.count(call.at, &call.event.into(), |tally| tally.denied_then += 1);
        }
        return;
    }
    let subject = Subject::from(call.event);
    let mut edited = None;
    let mut deeds: Vec<Deed> = Vec::with_capacity(courses.len());
    for course in courses.iter_mut() {
        let deed = course.deed(call);
        match &deed {
            Deed::Downgrade(model) => downgrade(edited.get_or_insert(call.event.clone()), model),
            Deed::Cap(max_tokens) => cap(edited.get_or_insert(call.event.clone()), *max_tokens),
            Deed::Nothing | Deed::Refuse | Deed::PutOff => {}
        }
        deeds.push(deed);
    }
    let after = match &edited {
        None => call.cost,
        Some(edited) => cost_of(edited, call, book),
    };
    let served = edited.as_ref().unwrap_or(call.event);
    let denier = (0..courses.len()).find(|&n| {
        let refused = deeds.get(n) == Some(&Deed::Refuse);
        refused
            || courses
                .get_mut(n)
                .is_some_and(|c| !c.has_room(served, after, &subject))
    });
    for (n, course) in courses.iter_mut().enumerate() {
        let is_denier = denier == Some(n);
        let deed = deeds.get(n).unwrap_or(&Deed::Nothing);
        let saved = match denier {
            Some(_) if is_denier => call.cost,
            Some(_) => 0,
            // Whoever changed it first is told to have saved the difference.
            None if deeds.iter().position(is_edit) == Some(n) => call.cost - after,
            None => 0,
        };
        course.charge_real(call, &subject);
        course.note(call.at, &subject, deed, is_denier, saved);
        if denier.is_none() {
            course.admit(call.at, served, after, &subject);
        }
    }
}

fn is_edit(deed: &Deed) -> bool {
    matches!(deed, Deed::Downgrade(_) | Deed::Cap(_))
}

/// What a call would have cost; what it did cost where nobody knows.
fn cost_of(edited: &Event, call: &PastCall<'_>, book: &Book) -> i128 {
    let priced = Bill::from(edited).price(book, "".into());
    let pico = priced.total.map(|cost| i128::from(cost.as_pico()));
    pico.filter(|_| call.is_priced).unwrap_or(call.cost)
}

fn downgrade(event: &mut Event, model: &str) {
    event.model = Some(model.to_owned());
    event.model_put = Some(model.to_owned());
}

/// Cuts an answer to so many tokens. What a model thinks comes first, and counts.
fn cap(event: &mut Event, max_tokens: u64) {
    let usage = event.billed_usage.as_mut().unwrap_or(&mut event.usage);
    let mut left = max_tokens;
    for bucket in [
        Bucket::Reasoning,
        Bucket::Output,
        Bucket::AudioOutput,
        Bucket::ImageOutput,
    ] {
        if let Some(tokens) = usage.get(bucket) {
            let kept = tokens.min(left);
            left -= kept;
            usage.set(bucket, Some(kept));
        }
    }
}

impl Tally {
    /// Adds another key's, whose dearest window stays one of its own.
    pub fn add(&mut self, other: &Tally) {
        for (sum, n) in [
            (&mut self.requests, other.requests),
            (&mut self.denied_then, other.denied_then),
            (&mut self.unpriced, other.unpriced),
            (&mut self.denied, other.denied),
            (&mut self.throttled, other.throttled),
            (&mut self.downgraded, other.downgraded),
            (&mut self.capped, other.capped),
            (&mut self.windows, other.windows),
            (&mut self.windows_denied, other.windows_denied),
        ] {
            *sum += n;
        }
        self.spent += other.spent;
        self.cost += other.cost;
        self.saved += other.saved;
        self.peak = self.peak.max(other.peak);
        let first = [self.first_denied, other.first_denied];
        self.first_denied = first.into_iter().flatten().min();
    }
}

// === impl Course ===

impl Course {
    fn new(policy: Policy, asked_from: Timestamp) -> Course {
        let span = policy.window.containing(asked_from, &policy.zone);
        let from = span.map_or(asked_from, |span| span.start);
        Course {
            matches: Match::new(policy.matches.clone()).knowing(&policy.models),
            told_from: match policy.window {
                Window::Rolling { .. } => asked_from,
                _ => from,
            },
            from,
            policy,
            accounts: HashMap::new(),
        }
    }

    /// The account of a call, brought to the instant.
    fn account(&mut self, at: Timestamp, subject: &Subject<'_>) -> &mut Account {
        let per = self.policy.per.iter();
        let key: Vec<String> = per
            .map(|name| subject.value(name).unwrap_or_default().to_owned())
            .collect();
        let account = self.accounts.entry(key).or_default();
        account.advance(at, &self.policy);
        account
    }

    /// What the highest tier asks for that was reached and does not spare the call.
    fn deed(&mut self, call: &PastCall<'_>) -> Deed {
        let (at, subject) = (call.at, &Subject::from(call.event));
        let is_strict = self.policy.enforce == Enforce::Strict;
        let limit = self.policy.limit;
        let account = self.account(at, subject);
        let spent = match is_strict {
            true => limit.units_of(account.admitted),
            false => limit.units_of(account.settled),
        };
        let tiers = self.policy.tiers.iter().rev();
        let mut reached = tiers.filter(|tier| spent >= limit.units_up(tier.at));
        let tier =
            reached.find(|tier| tier.except.is_empty() || !self.excepts(&tier.except, subject));
        match tier.map(|tier| tier.action.clone()) {
            None | Some(Action::Warn | Action::Header) => Deed::Nothing,
            Some(Action::Deny) => Deed::Refuse,
            Some(Action::Shed) => match subject.value("priority") {
                Some("critical") => Deed::Nothing,
                _ => Deed::Refuse,
            },
            Some(Action::CapOutput { max_tokens }) => Deed::Cap(max_tokens),
            Some(Action::Downgrade { models }) => {
                let asked = call.event.model_requested.as_deref().or(subject.model);
                match asked.and_then(|asked| replacement(&models, asked)) {
                    Some(model) => Deed::Downgrade(model.to_owned()),
                    None => Deed::Nothing,
                }
            }
            Some(Action::Throttle {
                requests_per_second,
            }) => {
                let pod = subject.value("pod").unwrap_or_default();
                let account = self.account(at, subject);
                match account.is_too_fast(at, pod, requests_per_second) {
                    true => Deed::PutOff,
                    false => Deed::Nothing,
                }
            }
        }
    }

    fn excepts(&self, except: &BTreeMap<String, String>, subject: &Subject<'_>) -> bool {
        let except = Match::new(except.clone()).knowing(&self.policy.models);
        except.matches(subject)
    }

    /// Whether a strict budget lets it pass: all that it let pass before and this call fit.
    fn has_room(&mut self, served: &Event, cost: i128, subject: &Subject<'_>) -> bool {
        if self.policy.enforce != Enforce::Strict {
            return true;
        }
        let deny = self
            .policy
            .tiers
            .iter()
            .find(|tier| tier.action == Action::Deny);
        let except = deny
            .map(|tier| &tier.except)
            .filter(|except| !except.is_empty());
        let is_spared = except.is_some_and(|except| self.excepts(except, subject));
        if is_spared {
            return true;
        }
        let limit = self.policy.limit;
        let hard = limit.units(self.policy.hard_share());
        let amount = amount(&limit, served, || cost);
        let at = Timestamp::from_millisecond(served.time.as_unix_ms()).unwrap_or_default();
        let admitted = self.account(at, subject).admitted;
        limit
            .units_of(admitted)
            .saturating_add(limit.units_of(amount))
            <= hard
    }

    /// Notes what really happened.
    fn charge_real(&mut self, call: &PastCall<'_>, subject: &Subject<'_>) {
        let spent = amount(&self.policy.limit, call.event, || call.cost);
        let is_told = call.at >= self.told_from;
        let is_rolling = matches!(self.policy.window, Window::Rolling { .. });
        let account = self.account(call.at, subject);
        account.real += spent;
        if is_rolling {
            account
                .really_within
                .push_back((call.at.as_millisecond(), spent));
        }
        if !is_told {
            return;
        }
        account.tally.peak = account.tally.peak.max(account.real);
        account.tally.requests += 1;
        account.tally.unpriced += u64::from(!call.is_priced);
        account.tally.spent += spent;
        account.tally.cost += pico_sum(call.cost);
    }

    /// Notes what would have happened.
    fn note(
        &mut self,
        at: Timestamp,
        subject: &Subject<'_>,
        deed: &Deed,
        is_denied: bool,
        saved: i128,
    ) {
        if is_denied {
            self.account(at, subject).was_denied = true;
        }
        self.count(at, subject, |tally| {
            if is_denied {
                tally.denied += 1;
                tally.first_denied.get_or_insert(at);
            }
            match deed {
                Deed::PutOff => tally.throttled += 1,
                Deed::Downgrade(_) if !is_denied => tally.downgraded += 1,
                Deed::Cap(_) if !is_denied => tally.capped += 1,
                _ => {}
            }
            tally.saved += pico_sum(saved);
        });
    }

    fn count(&mut self, at: Timestamp, subject: &Subject<'_>, count: impl FnOnce(&mut Tally)) {
        let is_told = at >= self.told_from;
        let account = self.account(at, subject);
        if is_told {
            count(&mut account.tally);
        }
    }

    /// Charges a call that would have been let pass.
    fn admit(&mut self, at: Timestamp, served: &Event, cost: i128, subject: &Subject<'_>) {
        let amount = amount(&self.policy.limit, served, || cost);
        let is_rolling = matches!(self.policy.window, Window::Rolling { .. });
        let begin = at.as_millisecond();
        let end = begin.saturating_add_unsigned(served.duration_ms);
        let account = self.account(at, subject);
        account.admitted += amount;
        account.under_way.push(Reverse((end, begin, amount)));
        if is_rolling {
            account.within.push_back((begin, amount));
        }
    }

    fn finish(self) -> Vec<Replayed> {
        let policy = self.policy;
        let mut accounts: Vec<(Vec<String>, Account)> = self.accounts.into_iter().collect();
        for (_, account) in &mut accounts {
            account.close_window();
        }
        let replayed = accounts.into_iter().map(|(key, account)| Replayed {
            budget: policy.name.clone(),
            key: policy.per.iter().cloned().zip(key).collect(),
            limit: policy.limit,
            tally: account.tally,
        });
        let mut replayed: Vec<Replayed> = replayed.collect();
        replayed.sort_by(|a, b| {
            let order = |r: &Replayed| (r.tally.saved, r.tally.denied, r.tally.spent);
            order(b).cmp(&order(a)).then_with(|| a.key.cmp(&b.key))
        });
        replayed
    }
}

fn pico_sum(pico: i128) -> PicoSum {
    PicoSum::from_pico(pico)
}

// === impl Account ===

impl Account {
    /// Ends what has ended by then, and the window where another has begun.
    fn advance(&mut self, at: Timestamp, policy: &Policy) {
        let now = at.as_millisecond();
        if let Window::Rolling { hours } = policy.window {
            let length = SignedDuration::from_hours(i64::from(hours)).as_millis() as i64;
            self.settle(now, Some(now - length));
            self.expire(now - length);
            return;
        }
        if self.window.is_none_or(|(_, end)| at >= end) {
            self.close_window();
            self.window = policy
                .window
                .containing(at, &policy.zone)
                .map(|span| (span.start, span.end));
            self.tally.windows += u64::from(self.window.is_some());
            (self.real, self.admitted, self.settled) = (0, 0, 0);
            // What ends from here on belongs to the window in which it began.
            self.under_way.clear();
        }
        self.settle(now, None);
    }

    /// Counts what has ended; what began before `oldest` is in no window any more.
    fn settle(&mut self, now: i64, oldest: Option<i64>) {
        while let Some(Reverse((end, begin, amount))) = self.under_way.peek().copied()
            && end <= now
        {
            self.under_way.pop();
            match oldest {
                None => self.settled += amount,
                Some(oldest) if begin > oldest => {
                    self.settled += amount;
                    self.settled_within.push(Reverse((begin, amount)));
                }
                Some(_) => {}
            }
        }
    }

    /// Takes what began before `oldest` out of a rolling window.
    fn expire(&mut self, oldest: i64) {
        for (within, sum) in [
            (&mut self.within, &mut self.admitted),
            (&mut self.really_within, &mut self.real),
        ] {
            while let Some((begin, amount)) = within.front().copied()
                && begin <= oldest
            {
                within.pop_front();
                *sum -= amount;
            }
        }
        while let Some(Reverse((begin, amount))) = self.settled_within.peek().copied()
            && begin <= oldest
        {
            self.settled_within.pop();
            self.settled -= amount;
        }
    }

    fn close_window(&mut self) {
        let was_denied = std::mem::take(&mut self.was_denied);
        if self.window.take().is_some() {
            self.tally.windows_denied += u64::from(was_denied);
        }
    }

    /// Whether so many calls of that pod came within the last second; one that does not is counted.
    fn is_too_fast(&mut self, at: Timestamp, pod: &str, per_second: u32) -> bool {
        let now = at.as_millisecond();
        let begins = self.last_second.entry(pod.to_owned()).or_default();
        while begins.front().is_some_and(|begin| *begin <= now - 1_000) {
            begins.pop_front();
        }
        let is_too_fast = begins.len() >= per_second as usize;
        if !is_too_fast {
            begins.push_back(now);
        }
        is_too_fast
    }
}

#[cfg(test)]
mod tests;
