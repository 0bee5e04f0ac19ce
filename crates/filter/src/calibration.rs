//! What the answers of each model have taught about its tokens, for estimates.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use tollmesh_usage::estimate::{Calibration, Call};
use tollmesh_usage::{Scan, UsageSource};

/// The models that a worker remembers, about 200 bytes each; the one that was not called for the
/// longest time makes room. A mesh calls a few dozen.
const MODELS_MAX: usize = 256;

/// One worker's calibrations, by provider and model.
#[derive(Debug, Default)]
pub struct Calibrations {
    table: RefCell<Table>,
}

#[derive(Debug, Default)]
struct Table {
    models: BTreeMap<u64, Entry>,
    /// Uses so far: the time by which entries age.
    n_uses: u64,
}

#[derive(Debug, Default)]
struct Entry {
    calibration: Calibration,
    used_at: u64,
}

impl Calibrations {
    /// Learns from a scan that reported its usage; completes one that did not, where it can be.
    pub fn settle(&self, provider: &str, model: &str, scan: &mut Scan, call: &Call<'_>) {
        let mut hasher = DefaultHasher::new();
        (provider, model).hash(&mut hasher);
        let model = hasher.finish();
        let mut table = self.table.borrow_mut();
        if scan.usage_source == UsageSource::Reported {
            table.entry(model).calibration.learn(scan, call);
        }
        match table.known(model) {
            Some(entry) => entry.calibration.complete(scan, call),
            None => Calibration::default().complete(scan, call),
        }
    }
}

impl Table {
    fn known(&mut self, model: u64) -> Option<&Entry> {
        self.n_uses += 1;
        let entry = self.models.get_mut(&model)?;
        entry.used_at = self.n_uses;
        Some(entry)
    }

    fn entry(&mut self, model: u64) -> &mut Entry {
        if self.models.len() >= MODELS_MAX && !self.models.contains_key(&model) {
            let oldest = self.models.iter().min_by_key(|(_, entry)| entry.used_at);
            let oldest = oldest.map(|(model, _)| *model);
            oldest.map(|model| self.models.remove(&model));
        }
        self.models.entry(model).or_default()
    }
}

#[cfg(test)]
mod tests {
    use tollmesh_usage::{Api, Bucket, Relayed, RequestFacts, Usage};

    use super::*;

    const REQUEST: RequestFacts = RequestFacts {
        model: None,
        model_put: None,
        streams: true,
        max_output_tokens: None,
        cap_put: None,
        is_cap_unsure: false,
        n_choices: None,
        has_tools: false,
        has_router_tools: false,
        n_spoken: None,
        service_tier: None,
        app_includes_usage: false,
        usage_injected: false,
        asks_reasoning: false,
        body_bytes: 400,
        media_bytes: 0,
    };

    fn scan(n_bytes: u64, output: Option<u64>) -> Scan {
        let mut usage = Usage::new();
        usage.set(Bucket::Output, output);
        usage.set(Bucket::Input, output.map(|_| 100));
        Scan {
            usage,
            usage_source: match output {
                Some(_) => UsageSource::Reported,
                None => UsageSource::Absent,
            },
            billable: true,
            complete: Some(output.is_some()),
            relayed: Relayed {
                answer_bytes: n_bytes,
                ..Relayed::default()
            },
            ..Scan::default()
        }
    }

    fn settled(calibrations: &Calibrations, model: &str, mut scan: Scan) -> Scan {
        let call = Call {
            api: Api::OpenAiChat,
            request: &REQUEST,
            status: Some(200),
            has_ended: true,
        };
        calibrations.settle("openai", model, &mut scan, &call);
        scan
    }

    #[test]
    fn each_model_is_estimated_by_its_own_answers() {
        let calibrations = Calibrations::default();
        for _ in 0..20 {
            settled(&calibrations, "dense", scan(1000, Some(1000)));
            settled(&calibrations, "sparse", scan(1000, Some(125)));
        }
        for (model, range) in [
            ("dense", 740..=1050),
            ("sparse", 120..=160),
            ("new", 240..=260),
        ] {
            let estimated = settled(&calibrations, model, scan(1000, None));
            let output = estimated.usage.get(Bucket::Output).unwrap();
            assert!(range.contains(&output), "{model}: {output}");
            assert_eq!(estimated.usage_source, UsageSource::Estimated);
        }
    }

    #[test]
    fn the_model_not_called_for_the_longest_time_makes_room() {
        let calibrations = Calibrations::default();
        settled(&calibrations, "kept", scan(1000, Some(1000)));
        for n in 0..1000 {
            settled(&calibrations, &n.to_string(), scan(1000, Some(250)));
            settled(&calibrations, "kept", scan(1000, Some(1000)));
        }
        assert_eq!(calibrations.table.borrow().models.len(), MODELS_MAX);
        let estimated = settled(&calibrations, "kept", scan(1000, None));
        assert!(estimated.usage.get(Bucket::Output).unwrap() > 800);
    }
}
