//! Which parts of a request a signature covers, so that they are left as they are.

use crate::headers::Headers;

/// What may be edited in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signature<'a> {
    /// Anything: no signature was found.
    None,
    /// No body; no header of this `;`-separated list (empty where the list could not be read).
    Aws {
        /// `SignedHeaders`, as the request has it.
        signed_headers: &'a str,
    },
    /// No body; headers are free (a digest header covers the body).
    Body,
    /// Nothing at all: what is covered cannot be told.
    Opaque,
}

/// Headers that hold a digest of the body (RFC 9530, RFC 3230, RFC 1864).
const BODY_DIGESTS: [&str; 3] = ["content-digest", "digest", "content-md5"];

impl<'a> Signature<'a> {
    /// What signs that request.
    ///
    /// Of `authorization` only the scheme and, for AWS Signature Version 4, the names of the
    /// signed headers are looked at
    /// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>).
    pub fn of(headers: &Headers<'a>) -> Signature<'a> {
        if headers.has("signature-input") {
            return Signature::Opaque;
        }
        let path = headers.get(":path").unwrap_or_default();
        if contains(path, b"X-Amz-Signature=") {
            return Signature::Opaque;
        }
        if let Some(value) = headers.get("authorization")
            && value.starts_with(b"AWS4-")
        {
            let signed_headers = signed_headers(value).unwrap_or_default();
            return Signature::Aws { signed_headers };
        }
        match BODY_DIGESTS.iter().any(|name| headers.has(name)) {
            true => Signature::Body,
            false => Signature::None,
        }
    }

    /// Whether the body may be spliced.
    pub fn leaves_body_free(&self) -> bool {
        *self == Signature::None
    }

    /// Whether the path may be changed.
    pub fn leaves_path_free(&self) -> bool {
        matches!(self, Signature::None | Signature::Body)
    }

    /// Whether that header (lower case) may be changed or taken out.
    pub fn leaves_header_free(&self, name: &str) -> bool {
        match self {
            Signature::None | Signature::Body => true,
            Signature::Aws { signed_headers } => {
                !signed_headers.is_empty() && signed_headers.split(';').all(|h| h != name)
            }
            Signature::Opaque => false,
        }
    }
}

fn signed_headers(authorization: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(authorization).ok()?;
    let (_, rest) = text.split_once("SignedHeaders=")?;
    rest.split([',', ' ']).next()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(pairs: &[(&str, &str)]) -> (bool, bool, bool) {
        let headers = pairs
            .iter()
            .map(|(n, v)| (n.as_bytes(), v.as_bytes()))
            .collect();
        let signature = Signature::of(&headers);
        (
            signature.leaves_body_free(),
            signature.leaves_header_free("x-llm-team"),
            signature.leaves_header_free("accept-encoding"),
        )
    }

    #[test]
    fn what_is_signed_stays() {
        let aws = "AWS4-HMAC-SHA256 Credential=AKID/20261101/us-east-1/bedrock/aws4_request, \
                   SignedHeaders=accept-encoding;host;x-amz-date, Signature=00";
        for (pairs, expected) in [
            (&[("authorization", "Bearer x")][..], (true, true, true)),
            (&[("authorization", aws)], (false, true, false)),
            (
                &[("authorization", "AWS4-ECDSA-P256-SHA256 ?")],
                (false, false, false),
            ),
            (
                &[(":path", "/model?X-Amz-Signature=00")],
                (false, false, false),
            ),
            (&[("content-digest", "sha-256=:x:")], (false, true, true)),
            (&[("signature-input", "s=()")], (false, false, false)),
        ] {
            assert_eq!(free(pairs), expected, "{pairs:?}");
        }
    }
}
