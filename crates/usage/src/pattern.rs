//! The walk over a pattern of a name, whatever its parts are: price tables keep them parsed, budgets'
//! matches as they are written.

/// What stands behind a model's name in its dated snapshots: the forms that providers use, `#` for a
/// digit.
pub const SNAPSHOT_DATES: [&str; 5] = [
    "-########",
    "-####-##-##",
    "@########",
    "@default",
    "@latest",
];

/// Whether the whole of `name` fits: parts for which `is_any` holds stand for any run of bytes, each
/// other one for a byte that it `takes`. Neither recurses nor allocates; at worst it takes as many
/// steps as both lengths multiplied.
pub fn fits<P>(
    parts: &[P],
    name: &[u8],
    is_any: impl Fn(&P) -> bool,
    takes: impl Fn(&P, u8) -> bool,
) -> bool {
    let (mut part, mut at) = (0, 0);
    // Where the last part for any run stands, and up to where it is taken to reach.
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = name.get(at) {
        match parts.get(part) {
            Some(any) if is_any(any) => {
                star = Some((part, at));
                part += 1;
            }
            Some(wanted) if takes(wanted, *byte) => {
                part += 1;
                at += 1;
            }
            _ => {
                let Some((star_part, star_at)) = star else {
                    return false;
                };
                star = Some((star_part, star_at + 1));
                part = star_part + 1;
                at = star_at + 1;
            }
        }
    }
    parts
        .get(part..)
        .is_some_and(|rest| rest.iter().all(is_any))
}
