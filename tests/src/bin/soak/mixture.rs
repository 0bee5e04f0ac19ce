//! The calls of a soak: half of them good in every API and chunking, half of them hostile.

use tollmesh_tests::dialect::Dialect;
use tollmesh_tests::exchange::Payload;
use tollmesh_tests::{Exchange, Usage, usage};

/// What a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Whole and right: its tokens must be in the ledger.
    Good,
    /// Something that nobody should send: it must pass, and have its event.
    Hostile,
    /// The app hangs up in the middle of a stream.
    Leaving,
}

impl Kind {
    /// The tag by which the ledger tells the kinds apart.
    pub fn team(self) -> &'static str {
        match self {
            Kind::Good => "good",
            Kind::Hostile => "hostile",
            Kind::Leaving => "leaving",
        }
    }
}

/// One call.
#[derive(Debug)]
pub struct Call {
    /// What it is.
    pub kind: Kind,
    /// What is asked and answered.
    pub exchange: Exchange,
    /// What the app must get, where the call is good.
    pub sha256: String,
}

/// Every call, in the order in which they are sent again and again.
#[derive(Debug)]
pub struct Mixture(Vec<Call>);

/// Sizes of the pieces in which good answers come.
const CHUNKS: [usize; 3] = [13, 997, usize::MAX];

impl Mixture {
    /// The mixture, good and hostile in turn.
    pub fn new() -> Mixture {
        let good = good();
        let bad: Vec<Call> = hostile().into_iter().chain(leaving()).collect();
        let n = good.len().max(bad.len());
        let mut bad = bad.iter().cycle();
        let calls = good.iter().cycle().take(n).flat_map(|good| {
            let bad = bad.next().map(Call::again);
            [Some(good.again()), bad].into_iter().flatten()
        });
        Mixture(calls.collect())
    }

    /// The call of that number.
    pub fn call(&self, n: u64) -> &Call {
        &self.0[(n % self.0.len() as u64) as usize]
    }

    /// How many of the first `n` calls are of that kind.
    pub fn n_of(&self, kind: Kind, n: u64) -> u64 {
        (0..n).filter(|n| self.call(*n).kind == kind).count() as u64
    }

    /// The tokens of one bucket in the good ones among the first `n` calls.
    pub fn tokens(&self, bucket: &str, n: u64) -> u64 {
        let good = (0..n).map(|n| self.call(n));
        let good = good.filter(|call| call.kind == Kind::Good);
        let used = good.filter_map(|call| call.exchange.usage.as_ref());
        used.map(|used| used.of(bucket)).sum()
    }
}

impl Call {
    fn new(kind: Kind, exchange: Exchange) -> Call {
        let reply = &exchange.reply;
        let sha256 = reply.app_sees.as_ref().unwrap_or(&reply.body).sha256();
        Call {
            kind,
            exchange,
            sha256,
        }
    }

    fn again(&self) -> Call {
        Call::new(self.kind, self.exchange.clone())
    }
}

fn used(n: u64) -> Usage {
    usage("gpt-4o").input(700 + n).cache_read(n).output(20 + n)
}

fn good() -> Vec<Call> {
    let mut calls = Vec::new();
    for dialect in Dialect::ALL {
        for n_bytes in CHUNKS {
            let n = calls.len() as u64;
            for exchange in [dialect.plain(&used(n)), dialect.streamed(&used(n))] {
                calls.push(Call::new(Kind::Good, exchange.chunks_of(n_bytes)));
            }
        }
    }
    calls
}

fn leaving() -> Vec<Call> {
    let half = |dialect: Dialect| {
        let whole = dialect.streamed(&used(1));
        let half = whole.reply.body.n_bytes() as usize / 2;
        Call::new(Kind::Leaving, whole.silent_after(half))
    };
    Dialect::ALL.into_iter().map(half).collect()
}

fn hostile() -> Vec<Call> {
    let mut exchanges = bad_bodies();
    exchanges.extend(bad_streams());
    for dialect in Dialect::ALL {
        let whole = dialect.streamed(&used(2));
        let half = whole.reply.body.n_bytes() as usize / 2;
        exchanges.push(whole.reset_after(half));
    }
    exchanges.push(answered("not compressed at all").reply_header("content-encoding", "gzip"));
    exchanges.push(answered("(\u{b5}/\u{fffd}").reply_header("content-encoding", "zstd"));
    exchanges.push(answered("????").reply_header("content-encoding", "own-invention"));
    exchanges.push(answered("{\"error\":{}}").status(500));
    exchanges.push(answered("").status(204));
    let call = |exchange| Call::new(Kind::Hostile, exchange);
    exchanges.into_iter().map(call).collect()
}

fn answered(body: impl Into<hyper::body::Bytes>) -> Exchange {
    let ask = "{\"model\":\"gpt-4o\"}";
    Exchange::post("api.openai.com", "/v1/chat/completions", ask).answered("application/json", body)
}

fn bad_bodies() -> Vec<Exchange> {
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let mut exchanges: Vec<Exchange> = [
        deep.as_bytes(),
        b"{\"usage\":{\"prompt_tokens\":1e400}}",
        b"{\"usage\":{\"prompt_tokens\":-5,\"completion_tokens\":9223372036854775808}}",
        b"{\"model\":\"\xff\xfe\",\"x\":\"\xc3\"}",
        b"<html>not JSON at all",
        b"\x00\x01\x02 not JSON",
        b"",
    ]
    .into_iter()
    .map(|body| answered(body.to_vec()).chunks_of(1009))
    .collect();
    let mut asks_nonsense = answered("{}");
    asks_nonsense.ask.body = Payload::Bytes("[".repeat(20_000).into());
    exchanges.push(asks_nonsense);
    exchanges
}

fn bad_streams() -> Vec<Exchange> {
    let endless_line = format!("data: {}", "x".repeat(100_000));
    let bodies: [&str; 5] = [
        "data: {\"usage\":",
        "\u{feff}:\n:\n\ndata\n\n\r\r\n\ndata: [DONE]\n\n",
        "data: {\"choices\":[]}\n\ndata: {not json}\n\ndata: [DONE]\n\n",
        "event: error\ndata: {\"error\":{\"message\":\"no\"}}\n\n",
        &endless_line,
    ];
    let stream = |body: &str| {
        let ask = "{\"model\":\"gpt-4o\",\"stream\":true}";
        Exchange::post("api.openai.com", "/v1/chat/completions", ask)
            .answered("text/event-stream", body.to_string())
            .chunks_of(4096)
    };
    bodies.into_iter().map(stream).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_calls_are_good() {
        let mixture = Mixture::new();
        assert_eq!(mixture.n_of(Kind::Good, 100), 50);
        assert!(mixture.n_of(Kind::Leaving, 100) > 0);
        assert_eq!(mixture.n_of(Kind::Good, 1), 1);
        assert_eq!(mixture.tokens("input", 1), 700);
    }
}
