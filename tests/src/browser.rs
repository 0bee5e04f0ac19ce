//! A real Chromium without a screen, driven over the DevTools protocol: real clicks, real keys.
//!
//! It is spoken to over a pipe (`--remote-debugging-pipe`: JSON, each message ended by a zero byte),
//! so that no port is open; it ends when the pipe does. Methods and events are those of
//! <https://chromedevtools.github.io/devtools-protocol/>.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fact;

/// How long an answer may take; a start takes longest.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a headless browser in a test does not need. Where the tests run as root the sandbox cannot
/// be had; the only pages it opens are our own.
const FLAGS: &[&str] = &[
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--metrics-recording-only",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--proxy-server=direct://",
];

/// Chromium expects what it reads at 3 and writes at 4; a child has its pipes at 0 and 1.
const AT_3_AND_4: &str = r#"exec "$@" 3<&0 4>&1 0</dev/null 1>&2"#;

/// A running browser; ended when dropped.
pub struct Browser {
    child: Child,
    wire: Arc<Wire>,
    dir: TempDir,
}

/// A page of its own, with storage of its own.
pub struct Page {
    wire: Arc<Wire>,
    session: String,
    context: String,
    downloads: PathBuf,
}

/// A look that a page is given.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// The width in CSS pixels.
    pub width: u32,
    /// The height in CSS pixels.
    pub height: u32,
    /// Whether the reader prefers dark.
    pub dark: bool,
}

/// The pipe, with what came over it.
struct Wire {
    to: Mutex<ChildStdin>,
    heard: Mutex<Heard>,
    news: Condvar,
    next_id: AtomicU64,
}

#[derive(Default)]
struct Heard {
    answers: HashMap<u64, Value>,
    events: Vec<Value>,
    is_over: bool,
}

// === impl Browser ===

impl Browser {
    /// Starts that program.
    pub fn start(program: &Path) -> Result<Browser> {
        let dir = tempfile::tempdir()?;
        let log = File::create(dir.path().join("chromium.log"))?;
        let mut command = Command::new("sh");
        command
            .args(["-c", AT_3_AND_4, "sh"])
            .arg(program)
            .args(FLAGS)
            .arg(format!(
                "--user-data-dir={}",
                dir.path().join("profile").display()
            ))
            .arg("about:blank")
            .env("HOME", dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut child = command.spawn().context("cannot start Chromium")?;
        let to = child.stdin.take().context("Chromium has no input")?;
        let from = child.stdout.take().context("Chromium has no output")?;
        let wire = Arc::new(Wire {
            to: Mutex::new(to),
            heard: Mutex::default(),
            news: Condvar::new(),
            next_id: AtomicU64::new(1),
        });
        let hearing = Arc::clone(&wire);
        std::thread::spawn(move || hearing.hear(BufReader::new(from)));
        let browser = Browser { child, wire, dir };
        let version = browser.wire.call(None, "Browser.getVersion", json!({}));
        version.with_context(|| browser.log())?;
        Ok(browser)
    }

    /// A page that looks so. Nothing is shared with other pages, storage and cache included.
    pub fn page(&self, look: Look) -> Result<Page> {
        let wire = &self.wire;
        let text = |value: &Value, name: &str| {
            let text = value[name].as_str().map(str::to_owned);
            text.with_context(|| format!("no {name} in {value}"))
        };
        let context = wire.call(None, "Target.createBrowserContext", json!({}))?;
        let context = text(&context, "browserContextId")?;
        let downloads = self.dir.path().join(format!("downloads-{context}"));
        fs::create_dir(&downloads)?;
        let behaviour = json!({ "behavior": "allow", "browserContextId": context,
                                "downloadPath": downloads });
        wire.call(None, "Browser.setDownloadBehavior", behaviour)?;
        let target = json!({ "url": "about:blank", "browserContextId": context });
        let target = text(&wire.call(None, "Target.createTarget", target)?, "targetId")?;
        let attach = json!({ "targetId": target, "flatten": true });
        let session = text(
            &wire.call(None, "Target.attachToTarget", attach)?,
            "sessionId",
        )?;
        let page = Page {
            wire: Arc::clone(wire),
            session,
            context,
            downloads,
        };
        for domain in ["Page", "Runtime", "Network", "Log"] {
            page.call(&format!("{domain}.enable"), json!({}))?;
        }
        page.look(look)?;
        Ok(page)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("chromium.log")).unwrap_or_default()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === impl Page ===

impl Page {
    /// Gives it another look.
    pub fn look(&self, look: Look) -> Result<()> {
        let Look {
            width,
            height,
            dark,
        } = look;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1,
                              "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", metrics)?;
        let scheme = if dark { "dark" } else { "light" };
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call(
            "Emulation.setEmulatedMedia",
            json!({ "features": [feature] }),
        )?;
        Ok(())
    }

    /// Closes it; what it stored is forgotten.
    pub fn close(self) -> Result<()> {
        let asked = json!({ "browserContextId": self.context });
        self.wire
            .call(None, "Target.disposeBrowserContext", asked)?;
        Ok(())
    }

    /// Opens that URL.
    pub fn open(&self, url: &str) -> Result<()> {
        let answer = self.call("Page.navigate", json!({ "url": url }))?;
        match answer["errorText"].as_str() {
            None | Some("") => Ok(()),
            Some(error) => bail!("{url}: {error}"),
        }
    }

    /// The value of an expression, promises awaited.
    pub fn value(&self, expression: &str) -> Result<Value> {
        let asked =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", asked)?;
        match answer.get("exceptionDetails") {
            None => Ok(answer["result"]["value"].clone()),
            Some(details) => bail!("{expression}: {details}"),
        }
    }

    /// The value of an expression that is a text.
    pub fn text(&self, expression: &str) -> String {
        match self.value(expression) {
            Ok(Value::String(text)) => text,
            Ok(other) => other.to_string(),
            Err(error) => panic!("{error:#}"),
        }
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub fn sees(&self, expression: &str) {
        fact::eventually(expression, || match self.value(expression) {
            Ok(Value::Bool(true)) => Ok(()),
            Ok(other) => Err(format!("{other}; the page: {}", self.shown())),
            Err(error) => Err(format!("{error:#}")),
        });
    }

    /// Clicks with the pointer in the middle of the first element of that selector.
    pub fn click(&self, selector: &str) -> Result<()> {
        let (x, y) = self.middle(selector)?;
        self.click_at(x, y)
    }

    /// Clicks with the pointer there, in CSS pixels of the window.
    pub fn click_at(&self, x: f64, y: f64) -> Result<()> {
        for (kind, buttons) in [("mouseMoved", 0), ("mousePressed", 1), ("mouseReleased", 0)] {
            self.mouse(kind, x, y, buttons)?;
        }
        Ok(())
    }

    /// Presses the button at one place, and lets it go at another.
    pub fn drag(&self, from: (f64, f64), to: (f64, f64)) -> Result<()> {
        self.mouse("mouseMoved", from.0, from.1, 0)?;
        self.mouse("mousePressed", from.0, from.1, 1)?;
        self.mouse("mouseMoved", (from.0 + to.0) / 2.0, to.1, 1)?;
        self.mouse("mouseMoved", to.0, to.1, 1)?;
        self.mouse("mouseReleased", to.0, to.1, 0)
    }

    /// The middle of the first element of that selector, which is brought into sight.
    pub fn middle(&self, selector: &str) -> Result<(f64, f64)> {
        let expression = format!(
            "(() => {{ const it = document.querySelector({selector:?}); if (!it) return null;
             it.scrollIntoView({{ block: 'center' }}); const box = it.getBoundingClientRect();
             return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        );
        let place = self.value(&expression)?;
        match (place[0].as_f64(), place[1].as_f64()) {
            (Some(x), Some(y)) => Ok((x, y)),
            _ => bail!("no {selector} on the page: {}", self.shown()),
        }
    }

    /// Writes where the keyboard's focus is.
    pub fn write(&self, text: &str) -> Result<()> {
        self.call("Input.insertText", json!({ "text": text }))?;
        Ok(())
    }

    /// Presses a key: `Tab`, `Enter` or `Escape`.
    pub fn press(&self, key: &str) -> Result<()> {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            "Escape" => (27, ""),
            other => bail!("unknown key {other}"),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "code": key,
                                    "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", event)?;
        }
        Ok(())
    }

    /// What the page shows, as PNG: the window, or all of the page.
    pub fn picture(&self, whole: bool) -> Result<Vec<u8>> {
        let asked = json!({ "format": "png", "captureBeyondViewport": whole });
        let mut asked = asked;
        if whole {
            let metrics = self.call("Page.getLayoutMetrics", json!({}))?;
            let size = &metrics["cssContentSize"];
            asked["clip"] = json!({ "x": 0, "y": 0, "width": size["width"],
                                    "height": size["height"], "scale": 1 });
        }
        let answer = self.call("Page.captureScreenshot", asked)?;
        let data = answer["data"].as_str().context("no picture")?;
        Ok(STANDARD.decode(data)?)
    }

    /// What is written on the page.
    pub fn shown(&self) -> String {
        let text = self.value("document.body?.innerText ?? ''");
        let text = text.ok().and_then(|text| text.as_str().map(str::to_owned));
        text.unwrap_or_default()
    }

    /// Errors and warnings on the console, exceptions, and what the browser complained about.
    pub fn complaints(&self) -> Vec<String> {
        let told = |event: &Value| -> Option<String> {
            let params = &event["params"];
            match event["method"].as_str()? {
                "Runtime.exceptionThrown" => Some(params["exceptionDetails"].to_string()),
                "Runtime.consoleAPICalled" => {
                    let kind = params["type"].as_str()?;
                    let is_bad = ["error", "warning", "assert"].contains(&kind);
                    is_bad.then(|| params["args"].to_string())
                }
                "Log.entryAdded" => {
                    let entry = &params["entry"];
                    let is_bad = ["error", "warning"].contains(&entry["level"].as_str()?);
                    is_bad.then(|| format!("{} {}", entry["text"], entry["url"]))
                }
                _ => None,
            }
        };
        self.events().iter().filter_map(told).collect()
    }

    /// The URLs that it asked for.
    pub fn requests(&self) -> Vec<String> {
        let asked = |event: &Value| -> Option<String> {
            let is_request = event["method"] == "Network.requestWillBeSent";
            let url = event["params"]["request"]["url"].as_str()?;
            is_request.then(|| url.to_owned())
        };
        self.events().iter().filter_map(asked).collect()
    }

    /// Waits for a download of that name, and reads it.
    #[track_caller]
    pub fn download(&self, name: &str) -> String {
        let path = self.downloads.join(name);
        fact::eventually(&format!("a download {name}"), || {
            fs::read_to_string(&path).map_err(|error| {
                let there = fs::read_dir(&self.downloads)
                    .into_iter()
                    .flatten()
                    .flatten();
                let there: Vec<_> = there.map(|entry| entry.file_name()).collect();
                format!("{error}; there are {there:?}; {:?}", self.complaints())
            })
        })
    }

    fn events(&self) -> Vec<Value> {
        let heard = lock(&self.wire.heard);
        let mine = heard.events.iter();
        mine.filter(|event| event["sessionId"] == self.session.as_str())
            .cloned()
            .collect()
    }

    fn mouse(&self, kind: &str, x: f64, y: f64, buttons: u8) -> Result<()> {
        let button = if kind == "mouseMoved" && buttons == 0 {
            "none"
        } else {
            "left"
        };
        let event = json!({ "type": kind, "x": x, "y": y, "button": button, "buttons": buttons,
                            "clickCount": u8::from(kind != "mouseMoved") });
        self.call("Input.dispatchMouseEvent", event)?;
        Ok(())
    }

    fn call(&self, method: &str, params: Value) -> Result<Value> {
        self.wire.call(Some(&self.session), method, params)
    }
}

// === impl Wire ===

impl Wire {
    /// Calls a method and waits for its answer.
    fn call(&self, session: Option<&str>, method: &str, params: Value) -> Result<Value> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        let mut to = lock(&self.to);
        to.write_all(&bytes)
            .and_then(|()| to.flush())
            .context("Chromium has gone")?;
        drop(to);
        let answer = self.answer(id).with_context(|| method.to_owned())?;
        match answer.get("error") {
            None => Ok(answer["result"].clone()),
            Some(error) => bail!("{method}: {error}"),
        }
    }

    fn answer(&self, id: u64) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = lock(&self.heard);
        loop {
            if let Some(answer) = heard.answers.remove(&id) {
                return Ok(answer);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if heard.is_over || left.is_zero() {
                bail!("Chromium does not answer");
            }
            let waited = self.news.wait_timeout(heard, left);
            heard = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn hear(&self, mut from: impl BufRead) {
        let mut bytes = Vec::new();
        while from.read_until(0, &mut bytes).is_ok_and(|n| n > 0) {
            bytes.pop();
            if let Ok(message) = serde_json::from_slice::<Value>(&bytes) {
                let mut heard = lock(&self.heard);
                match message["id"].as_u64() {
                    Some(id) => drop(heard.answers.insert(id, message)),
                    None => heard.events.push(message),
                }
                self.news.notify_all();
            }
            bytes.clear();
        }
        lock(&self.heard).is_over = true;
        self.news.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
