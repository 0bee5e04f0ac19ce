//! tmp
use tollmesh_budget::lease::{Fault, model::*};
fn main() {
    let n: u64 = std::env::args().nth(1).unwrap().parse().unwrap();
    let only: Option<usize> = std::env::args().nth(2).and_then(|a| a.parse().ok());
    let faults: Vec<Option<Fault>> = if only.is_some() {
        vec![Some(Fault::ALL[only.unwrap()])]
    } else {
        vec![None]
    };
    for fault in faults {
        for s in SCENARIOS {
            let t = std::time::Instant::now();
            let (
                mut over,
                mut worst,
                mut bounds,
                mut bound_worst,
                mut broken,
                mut uneq,
                mut differ,
                mut used,
                mut adm,
                mut refu,
            ) = (0, 0.0f64, 0, 0.0f64, 0, 0, 0, 0.0, 0, 0);
            let mut first = None;
            for seed in 0..n {
                let o = run(seed, 2000, s, &mut InMemory::new(fault));
                over += u64::from(o.overspent > 0);
                worst = worst.max(o.overspent as f64 / o.limit as f64);
                bounds += u64::from(o.bound > 0);
                bound_worst = bound_worst.max(o.bound as f64 / o.limit as f64);
                broken += u64::from(o.broken_at_step.is_some());
                uneq += u64::from(o.stored != o.ledgers || o.allocated != o.ledgers);
                differ += u64::from(o.n_differing > 0);
                used += o.ledgers as f64 / o.limit as f64;
                adm += o.n_admitted;
                refu += o.n_refused;
                if !o.holds() && first.is_none() {
                    first = Some((seed, o));
                }
            }
            println!(
                "{:28} over {over:4} worst {:6.2}% bound>0 {bounds:4} worst {:6.2}% broken {broken:4} uneq {uneq:4} differ {differ:4} used {:5.1}% adm {} ref {} {:?} {:?}",
                s.name,
                worst * 100.0,
                bound_worst * 100.0,
                used * 100.0 / n as f64,
                adm / n,
                refu / n,
                t.elapsed(),
                first
            );
        }
    }
}
