//! `tags` of the plugin configuration: where tags come from, and what becomes of them.

mod read;

use std::collections::BTreeMap;

use super::{HEADER_PREFIX_DEFAULT, SecretKey, TagOrigin};

/// `tags`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagSources {
    /// Tag name to header name (lower case).
    pub headers: BTreeMap<String, String>,
    /// Every header that starts so (lower case) is a tag named by its rest; `None`: no such tags.
    pub header_prefix: Option<String>,
    /// Tag name to key of a W3C baggage member.
    pub baggage: BTreeMap<String, String>,
    /// Other tools whose headers are read.
    pub aliases: Vec<TagAlias>,
    /// What callers are tagged with by who they are; for each tag the first entry counts that fits
    /// and has it.
    pub by_workload: Vec<WorkloadTags>,
    /// Values of tags that the request does not carry.
    pub defaults: BTreeMap<String, String>,
    /// By tag name, or `*` for all that are not named: who may say it, the first before the others.
    pub precedence: BTreeMap<String, Vec<TagOrigin>>,
    /// Tags that every call should carry.
    pub required: Vec<String>,
    /// What to do with a call that lacks one of them.
    pub on_missing: OnMissing,
    /// Whether tags are taken out of the request before it leaves.
    pub strip: bool,
    /// Tags whose values are always hashed.
    pub hash: Vec<String>,
    /// What values of any tag are hashed for looking so.
    pub hash_shapes: Vec<TagShape>,
    /// The key of these hashes; always there where something is to be hashed.
    pub hash_key: Option<SecretKey>,
}

/// One word of `tags.aliases`: a tool whose header conventions are read, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagAlias {
    /// `helicone-property-*`, `helicone-user-id`, `helicone-session-id`.
    Helicone,
    /// `x-portkey-metadata`.
    Portkey,
    /// `x-litellm-tags`, `x-litellm-spend-logs-metadata` and the ids of customers and users.
    LiteLlm,
}

/// One entry of `tags.by_workload`. Every selector that is there must fit; in patterns `*` stands
/// for any run of characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadTags {
    /// Pattern of the caller's namespace.
    pub namespace: Option<String>,
    /// Pattern of its workload.
    pub workload: Option<String>,
    /// Pattern of its service account.
    pub service_account: Option<String>,
    /// Pattern of its SPIFFE id.
    pub principal: Option<String>,
    /// Pattern of its cluster.
    pub cluster: Option<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// `tags.on_missing`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMissing {
    /// The call is metered without the tag.
    Record,
    /// The call is metered without the tag, and its answer says so in a header.
    Header,
    /// The call is refused.
    Deny,
}

/// One word of `tags.hash_shapes`: what a value may look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagShape {
    /// An e-mail address.
    Email,
    /// A key, a token or another credential.
    Key,
}

impl TagAlias {
    /// Whether that header (lower case) is one of the convention's.
    pub fn reads(self, header: &str) -> bool {
        match self {
            TagAlias::Helicone => {
                matches!(header, "helicone-user-id" | "helicone-session-id")
                    || header.starts_with("helicone-property-")
            }
            TagAlias::Portkey => header == "x-portkey-metadata",
            TagAlias::LiteLlm => matches!(
                header,
                "x-litellm-tags"
                    | "x-litellm-spend-logs-metadata"
                    | "x-litellm-customer-id"
                    | "x-litellm-end-user-id"
            ),
        }
    }
}

impl TagSources {
    /// Whether a header of that name (lower case) can carry a tag.
    pub fn reads(&self, header: &str) -> bool {
        let prefix = self.header_prefix.as_deref();
        self.headers.values().any(|name| name == header)
            || prefix.is_some_and(|prefix| header.starts_with(prefix))
            || (header == "baggage" && !self.baggage.is_empty())
            || self.aliases.iter().any(|alias| alias.reads(header))
    }

    /// The rank of an origin for that tag, the least first; `None`: it has no say.
    pub fn rank(&self, tag: &str, origin: TagOrigin) -> Option<usize> {
        let declared = || {
            self.precedence
                .get(tag)
                .or_else(|| self.precedence.get("*"))
        };
        match self.precedence.is_empty() {
            true => Some(origin as usize),
            false => match declared() {
                Some(origins) => origins.iter().position(|o| *o == origin),
                None => Some(origin as usize),
            },
        }
    }
}

impl Default for TagSources {
    fn default() -> TagSources {
        TagSources {
            headers: BTreeMap::new(),
            header_prefix: Some(HEADER_PREFIX_DEFAULT.to_owned()),
            baggage: BTreeMap::new(),
            aliases: Vec::new(),
            by_workload: Vec::new(),
            defaults: BTreeMap::new(),
            precedence: BTreeMap::new(),
            required: Vec::new(),
            on_missing: OnMissing::Record,
            strip: true,
            hash: Vec::new(),
            hash_shapes: Vec::new(),
            hash_key: None,
        }
    }
}
