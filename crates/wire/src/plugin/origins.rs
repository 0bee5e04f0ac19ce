//! The places that a tag can come from, and the names that tags usually have.

/// The names that tags have by convention, so that reports of several teams can be put together.
/// Others are as welcome.
pub const STANDARD_TAGS: &[&str] = &[
    "feature",
    "team",
    "environment",
    "user",
    "workspace",
    "customer",
    "tier",
    "experiment",
    "cost_center",
    "workflow",
    "agent",
    "session",
    "prompt_version",
    "task",
    "priority",
];

/// Where a value of a tag comes from; each has the name of the key under `tags` that it is
/// configured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TagOrigin {
    /// `headers`: a header that is named for this tag.
    Headers,
    /// `header_prefix`: a header that has the tag's name in its own.
    HeaderPrefix,
    /// `baggage`: a member of W3C baggage.
    Baggage,
    /// `aliases`: a header of another tool's convention.
    Aliases,
    /// `by_workload`: what the mesh says of this caller.
    ByWorkload,
    /// `defaults`: what holds where nothing else does.
    Defaults,
}

impl TagOrigin {
    /// Every origin, in the order that holds where `tags.precedence` does not say otherwise.
    pub const ALL: [TagOrigin; 6] = [
        TagOrigin::Headers,
        TagOrigin::HeaderPrefix,
        TagOrigin::Baggage,
        TagOrigin::Aliases,
        TagOrigin::ByWorkload,
        TagOrigin::Defaults,
    ];

    /// Whether the request says it, and so the app, rather than the operator.
    pub const fn is_claim(self) -> bool {
        !matches!(self, TagOrigin::ByWorkload | TagOrigin::Defaults)
    }
}

/// The standard tag that a name means: many proxies drop headers with `_` in their names, so
/// `cost-center` is `cost_center`. Other names mean themselves.
pub fn standard_tag(name: &str) -> &str {
    let same = |a: u8, b: u8| a == b || (a == b'-' && b == b'_');
    let means = |standard: &&&str| {
        standard.len() == name.len() && name.bytes().zip(standard.bytes()).all(|(a, b)| same(a, b))
    };
    match name.contains('-') {
        true => STANDARD_TAGS.iter().find(means).copied().unwrap_or(name),
        false => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hyphen_may_stand_for_an_underscore_in_standard_names_only() {
        for (name, tag) in [
            ("cost-center", "cost_center"),
            ("prompt-version", "prompt_version"),
            ("cost_center", "cost_center"),
            ("team", "team"),
            ("data-class", "data-class"),
            ("cost-centers", "cost-centers"),
        ] {
            assert_eq!(standard_tag(name), tag);
        }
    }
}
