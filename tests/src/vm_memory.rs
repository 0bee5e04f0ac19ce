//! The linear memory of a proxy's wasm VMs, from the kernel's map of the process.
//!
//! Envoy shows no figure for it: V8 maps a VM's memory outside of the allocator that
//! `server.memory_allocated` is about. V8 reserves more than 4 GiB of addresses for each VM, so
//! that no 32-bit offset can leave them, and makes only the memory itself accessible; what lies
//! writable before so large a hole is therefore a VM's memory
//! (<https://v8.dev/blog/4gb-wasm-memory>).

use anyhow::Context;

/// Addresses that a hole has at least: what is left of 8 GiB when a memory has its most.
const HOLE_BYTES_MIN: u64 = 4 << 30;

/// Bytes of linear memory that the VMs of process `id` have grown to, together.
pub fn linear_bytes(id: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{id}/maps");
    let maps = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(linear_in(&maps))
}

fn linear_in(maps: &str) -> u64 {
    let mappings: Vec<Mapping> = maps.lines().filter_map(mapping).collect();
    let is_memory = |pair: &[Mapping]| match pair {
        [memory, hole] => {
            let is_before = memory.end == hole.start && memory.access.starts_with("rw");
            let is_hole = hole.access.starts_with("---") && hole.n_bytes() >= HOLE_BYTES_MIN;
            is_before && is_hole
        }
        _ => false,
    };
    let memories = mappings.windows(2).filter(|pair| is_memory(pair));
    memories.map(|pair| pair[0].n_bytes()).sum()
}

/// A line of proc(5)'s `maps`.
struct Mapping {
    start: u64,
    end: u64,
    access: String,
}

impl Mapping {
    fn n_bytes(&self) -> u64 {
        self.end - self.start
    }
}

fn mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    Some(Mapping {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        access: fields.next()?.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_lies_before_a_hole() {
        let maps = "\
7fcd30600000-7fcd30620000 ---p 00000000 00:00 0
7fcd30620000-7fcd307d0000 rw-p 00000000 00:00 0
7fcd307d0000-7fcf30620000 ---p 00000000 00:00 0
7fcf30620000-7fcf30630000 r--p 00000000 00:00 0
7fd000000000-7fd000021000 rw-p 00000000 00:00 0
7fd000021000-7fd004000000 ---p 00000000 00:00 0
7fd193630000-7fd193770000 rw-p 00000000 00:00 0
7fd193770000-7fd393630000 ---p 00000000 00:00 0
";
        assert_eq!(linear_in(maps), (1728 + 1280) << 10);
        assert_eq!(linear_in(""), 0);
    }
}
