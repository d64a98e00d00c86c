//! The desktop of a headless browser: a session bus (D-Bus) with the one service that shows notifications
//! (<https://specifications.freedesktop.org/notification-spec/>), so that tests can read and click them.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);

const BUS: &str = "org.freedesktop.DBus";
const NOTIFICATIONS: &str = "org.freedesktop.Notifications";
const PATH: &str = "/org/freedesktop/Notifications";

// Kinds of message.
const CALL: u8 = 1;
const ANSWER: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

// Fields of a message's header.
const F_PATH: u8 = 1;
const F_INTERFACE: u8 = 2;
const F_MEMBER: u8 = 3;
const F_ERROR: u8 = 4;
const F_REPLY: u8 = 5;
const F_SENDER: u8 = 7;
const F_SIGNATURE: u8 = 8;

/// A desktop without a screen: it records notifications, and reports clicks.
#[derive(Clone)]
pub(crate) struct Desktop {
    shown: Arc<Mutex<Vec<Shown>>>,
    changed: Arc<watch::Sender<()>>,
}

/// A notification from the browser.
#[derive(Clone)]
struct Shown {
    id: u32,
    title: String,
    body: String,
    /// Keys and labels of the buttons, in turns.
    actions: Vec<String>,
    to: mpsc::UnboundedSender<Vec<u8>>,
}

impl Desktop {
    /// Listens on a path, for `DBUS_SESSION_BUS_ADDRESS=unix:path=…`.
    pub(crate) fn start(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let desktop = Self {
            shown: Arc::default(),
            changed: Arc::new(watch::channel(()).0),
        };
        let applications = desktop.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(applications.clone().talk(stream));
            }
        });
        desktop
    }

    /// Clicks on the last notification with this title, or on one of its buttons, once it is shown. Returns its text.
    pub(crate) async fn click(&self, title: &str, button: Option<&str>) -> String {
        let mut changes = self.changed.subscribe();
        let shown = timeout(LIMIT, async {
            loop {
                changes.borrow_and_update();
                let found = {
                    let shown = self.shown.lock().unwrap();
                    shown.iter().rfind(|shown| shown.title == title).cloned()
                };
                match found {
                    Some(found) => return found,
                    None => changes.changed().await.unwrap(),
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("the browser did not show {title}"));
        let key = match button {
            None => "default",
            Some(button) => {
                let mut buttons = shown.actions.chunks(2);
                let found = buttons.find(|pair| pair[1] == button);
                &found.unwrap_or_else(|| panic!("{title} has no button {button}"))[0]
            }
        };
        let arguments = Body::default().number(shown.id).text(key);
        let _ = shown.to.send(signal("ActionInvoked", &arguments, "us"));
        shown.body
    }

    async fn talk(self, stream: UnixStream) -> Option<()> {
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        // Every process that can open the socket is accepted.
        assert_eq!(reader.read_u8().await.ok()?, 0);
        let mut line = String::new();
        loop {
            line.clear();
            reader.read_line(&mut line).await.ok()?;
            let answer: &[u8] = match line.split_whitespace().next()? {
                "AUTH" => b"OK 0123456789abcdef0123456789abcdef\r\n",
                "BEGIN" => break,
                _ => b"ERROR\r\n",
            };
            writer.write_all(answer).await.ok()?;
        }
        let (to, mut outbox) = mpsc::unbounded_channel::<Vec<u8>>();
        tokio::spawn(async move {
            while let Some(message) = outbox.recv().await {
                if writer.write_all(&message).await.is_err() {
                    return;
                }
            }
        });
        loop {
            let call = Received::read(&mut reader).await?;
            if call.kind == CALL {
                for message in self.answer(&call, &to) {
                    to.send(message).ok()?;
                }
            }
        }
    }

    /// Returns the response to a call, and a signal that belongs to it.
    fn answer(&self, call: &Received, to: &mpsc::UnboundedSender<Vec<u8>>) -> Vec<Vec<u8>> {
        let mut arguments = Reader(&call.body, 0);
        let none = Body::default;
        let answer = |body: Body, signature: &str| vec![call.answer(&body, signature)];
        match (call.interface.as_str(), call.member.as_str()) {
            (BUS, "Hello") => answer(none().text(":1.1"), "s"),
            (BUS, "AddMatch" | "RemoveMatch") => answer(none(), ""),
            (BUS, "NameHasOwner") => {
                let is_there = arguments.text() == NOTIFICATIONS;
                answer(none().number(is_there.into()), "b")
            }
            // 2: it runs already.
            (BUS, "StartServiceByName") if arguments.text() == NOTIFICATIONS => {
                answer(none().number(2), "u")
            }
            (BUS, "GetNameOwner") if arguments.text() == NOTIFICATIONS => {
                answer(none().text(":1.0"), "s")
            }
            (NOTIFICATIONS, "GetServerInformation") => {
                let body = none().text("test").text("test").text("1").text("1.2");
                answer(body, "ssss")
            }
            (NOTIFICATIONS, "GetCapabilities") => answer(none().texts(&["actions", "body"]), "as"),
            (NOTIFICATIONS, "Notify") => {
                let _application = arguments.text();
                let replaced = arguments.number();
                let _icon = arguments.text();
                let title = arguments.text();
                let body = arguments.text();
                let id = self.show(Shown {
                    id: replaced,
                    title,
                    body,
                    actions: arguments.texts(),
                    to: to.clone(),
                });
                answer(none().number(id), "u")
            }
            (NOTIFICATIONS, "CloseNotification") => {
                let id = arguments.number();
                self.shown.lock().unwrap().retain(|shown| shown.id != id);
                // 3: closed by a call.
                let closed = signal("NotificationClosed", &none().number(id).number(3), "uu");
                vec![call.answer(&none(), ""), closed]
            }
            _ => vec![call.refuse()],
        }
    }

    /// Shows it under its id, in place of another, or under a new one. Returns the id.
    fn show(&self, mut new: Shown) -> u32 {
        let mut shown = self.shown.lock().unwrap();
        if new.id == 0 {
            new.id = 1 + shown.iter().map(|shown| shown.id).max().unwrap_or(0);
        }
        let id = new.id;
        shown.retain(|shown| shown.id != id);
        shown.push(new);
        drop(shown);
        self.changed.send_replace(());
        id
    }
}

fn signal(name: &str, arguments: &Body, signature: &str) -> Vec<u8> {
    let header = Header::default()
        .text(F_PATH, b'o', PATH)
        .text(F_INTERFACE, b's', NOTIFICATIONS)
        .text(F_MEMBER, b's', name)
        .text(F_SENDER, b's', ":1.0");
    header.finish(SIGNAL, arguments, signature)
}

/// The parts of a call that matter here.
#[derive(Default)]
struct Received {
    kind: u8,
    serial: u32,
    interface: String,
    member: String,
    body: Vec<u8>,
}

impl Received {
    /// Returns `None` once the other side has disconnected.
    async fn read(reader: &mut (impl AsyncBufRead + Unpin)) -> Option<Self> {
        let mut start = [0; 16];
        reader.read_exact(&mut start).await.ok()?;
        assert_eq!(
            (start[0], start[3]),
            (b'l', 1),
            "a little-endian message of version 1"
        );
        let mut fixed = Reader(&start, 4);
        let (body_length, serial, fields_length) = (fixed.number(), fixed.number(), fixed.number());
        let mut fields = vec![0; (fields_length as usize).next_multiple_of(8)];
        reader.read_exact(&mut fields).await.ok()?;
        let mut received = Self {
            kind: start[1],
            serial,
            ..Self::default()
        };
        let mut fields = Reader(&fields, 0);
        while fields.1 < fields_length as usize {
            fields.align(8);
            let field = fields.octet();
            match (field, fields.signature().as_str()) {
                (F_INTERFACE, "s") => received.interface = fields.text(),
                (F_MEMBER, "s") => received.member = fields.text(),
                (_, "s" | "o") => drop(fields.text()),
                (_, "g") => drop(fields.signature()),
                (_, "u") => drop(fields.number()),
                (_, other) => panic!("a header's field of type {other}"),
            }
        }
        received.body = vec![0; body_length as usize];
        reader.read_exact(&mut received.body).await.ok()?;
        Some(received)
    }

    fn answer(&self, body: &Body, signature: &str) -> Vec<u8> {
        // The sender: the bus for its own messages, the service otherwise.
        let sender = if self.interface == BUS { BUS } else { ":1.0" };
        let header = Header::default()
            .number(F_REPLY, self.serial)
            .text(F_SENDER, b's', sender);
        header.finish(ANSWER, body, signature)
    }

    fn refuse(&self) -> Vec<u8> {
        let header = Header::default()
            .number(F_REPLY, self.serial)
            .text(F_ERROR, b's', "org.freedesktop.DBus.Error.ServiceUnknown")
            .text(F_SENDER, b's', BUS);
        header.finish(ERROR, &Body::default(), "")
    }
}

/// The octets, and the number of those that were read.
struct Reader<'a>(&'a [u8], usize);

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.1 = self.1.next_multiple_of(to);
    }

    fn octet(&mut self) -> u8 {
        self.1 += 1;
        self.0[self.1 - 1]
    }

    fn number(&mut self) -> u32 {
        self.align(4);
        self.1 += 4;
        u32::from_le_bytes(self.0[self.1 - 4..self.1].try_into().unwrap())
    }

    fn text(&mut self) -> String {
        let length = self.number() as usize;
        self.characters(length)
    }

    fn signature(&mut self) -> String {
        let length = self.octet().into();
        self.characters(length)
    }

    fn texts(&mut self) -> Vec<String> {
        let end = self.number() as usize + self.1;
        let mut texts = Vec::new();
        while self.1 < end {
            texts.push(self.text());
        }
        texts
    }

    /// Reads characters with a zero behind them.
    fn characters(&mut self, length: usize) -> String {
        let text = String::from_utf8(self.0[self.1..self.1 + length].to_vec()).unwrap();
        self.1 += length + 1;
        text
    }
}

/// Values, each at a multiple of its alignment.
#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn number(mut self, number: u32) -> Self {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self.0.extend(number.to_le_bytes());
        self
    }

    fn text(self, text: &str) -> Self {
        let mut body = self.number(text.len() as u32);
        body.0.extend(text.as_bytes());
        body.0.push(0);
        body
    }

    fn texts(self, texts: &[&str]) -> Self {
        let start = self.0.len().next_multiple_of(4) + 4;
        let mut body = self.number(0);
        for text in texts {
            body = body.text(text);
        }
        let length = (body.0.len() - start) as u32;
        body.0[start - 4..start].copy_from_slice(&length.to_le_bytes());
        body
    }
}

/// The fields of a header.
#[derive(Default)]
struct Header(Body);

impl Header {
    fn field(mut self, field: u8, kind: u8) -> Body {
        self.0.0.resize(self.0.0.len().next_multiple_of(8), 0);
        self.0.0.extend([field, 1, kind, 0]);
        self.0
    }

    fn text(self, field: u8, kind: u8, text: &str) -> Self {
        Self(self.field(field, kind).text(text))
    }

    fn number(self, field: u8, number: u32) -> Self {
        Self(self.field(field, b'u').number(number))
    }

    fn finish(self, kind: u8, body: &Body, signature: &str) -> Vec<u8> {
        let mut fields = self.field(F_SIGNATURE, b'g');
        fields.0.push(signature.len() as u8);
        fields.0.extend(signature.as_bytes());
        fields.0.push(0);
        // A message that answers no call needs a serial other than 0. Responses are not answered.
        let start = Body(vec![b'l', kind, 1, 1])
            .number(body.0.len() as u32)
            .number(1)
            .number(fields.0.len() as u32);
        let mut message = start.0;
        message.extend(&fields.0);
        message.resize(message.len().next_multiple_of(8), 0);
        message.extend(&body.0);
        message
    }
}
