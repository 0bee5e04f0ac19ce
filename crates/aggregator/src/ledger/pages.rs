//! Checksums of the ledger's pages: written with each page, and looked at whenever one is read.
//!
//! SQLite finds a page damaged only where its structure breaks; an amount in it that changed is read
//! as that amount. So a layer stands between SQLite and its file
//! (<https://www.sqlite.org/vfs.html>), and keeps the last bytes of every page for itself, as the
//! format provides (<https://www.sqlite.org/fileformat2.html#reserved_bytes_per_page>). A page whose
//! checksum is wrong is never given to SQLite: whoever asked for it gets `SQLITE_IOERR_DATA`.
//!
//! What it finds: every alteration of up to 32 bits in a row, and of any other all but one in four
//! billion; and a page that was written to another's place. What it does not: an alteration of the
//! write-ahead log while it is in use (SQLite has checksums of its own in it, and looks at them when
//! the log is recovered), a page's former state in its former place, and ledgers that were begun
//! without checksums, which stay without.
//!
//! The layer is a copy of SQLite's own for the operating system, with three of a file's methods
//! replaced; it also counts what it writes, so that what others write can be told from it. This is the only file of this crate with `unsafe` in it.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::mem::size_of;
use std::path::Path;
use std::sync::OnceLock;

use rusqlite::{Connection, OpenFlags, ffi};

use crate::ledger::schema::APPLICATION_ID;

/// The name by which SQLite knows the layer.
const NAME: &CStr = c"tollmesh";

/// Bytes at the end of every page that are the layer's: a mark, the page's number, a CRC-32 of all
/// before it. Not one bit away from 0, so that no single bit of the header turns checking off.
const RESERVED_BYTES: u8 = 12;

/// What the layer's bytes begin with.
const MARK: [u8; 4] = *b"TolP";

/// Where the header says how many bytes of each page are reserved.
const RESERVED_AT: usize = 20;

/// Where the header says whose file it is.
const APPLICATION: std::ops::Range<usize> = 68..72;

/// The header of the file, which the first page begins with.
const HEADER_BYTES: usize = 100;

/// SQLite's smallest page.
const PAGE_BYTES_MIN: c_int = 512;

thread_local! {
    /// The page that this thread was last refused.
    static REFUSED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Opens a file through the layer. A new one gets checksums.
pub fn open(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    Layer::get().ok_or_else(|| failure(ffi::SQLITE_CANTOPEN))?;
    let connection = Connection::open_with_flags_and_vfs(path, flags, NAME)?;
    let mut wanted = c_int::from(RESERVED_BYTES);
    // SAFETY: the handle is that of an open connection, and SQLite reads and writes one `int`.
    // Of a file that has pages already it changes nothing.
    let code = unsafe {
        ffi::sqlite3_file_control(
            connection.handle(),
            c"main".as_ptr(),
            ffi::SQLITE_FCNTL_RESERVE_BYTES,
            (&raw mut wanted).cast(),
        )
    };
    match code {
        ffi::SQLITE_OK => Ok(connection),
        code => Err(failure(code)),
    }
}

/// Whether the pages of that open file have checksums, wherever it is now.
pub fn has_guards(connection: &Connection) -> bool {
    // Negative: SQLite tells, and changes nothing.
    let mut reserved: c_int = -1;
    // SAFETY: the handle is that of an open connection, and SQLite reads and writes one `int`.
    let code = unsafe {
        ffi::sqlite3_file_control(
            connection.handle(),
            c"main".as_ptr(),
            ffi::SQLITE_FCNTL_RESERVE_BYTES,
            (&raw mut reserved).cast(),
        )
    };
    code == ffi::SQLITE_OK && reserved == c_int::from(RESERVED_BYTES)
}

/// How often the file of that connection, which [`open`] made, was written or cut through it.
pub fn writes(connection: &Connection) -> u64 {
    let mut file: *mut ffi::sqlite3_file = std::ptr::null_mut();
    // SAFETY: the handle is that of an open connection, and SQLite writes one pointer: to the file,
    // which is the layer's and lives as long as the connection.
    unsafe {
        let code = ffi::sqlite3_file_control(
            connection.handle(),
            c"main".as_ptr(),
            ffi::SQLITE_FCNTL_FILE_POINTER,
            (&raw mut file).cast(),
        );
        if code != ffi::SQLITE_OK || file.is_null() {
            return 0;
        }
        let guard = Layer::get().and_then(|layer| layer.guard(file).as_ref());
        guard.map_or(0, |guard| guard.writes.get())
    }
}

/// Whether a file that begins so may be a database: its first page is whole, or at least the header
/// of one that has no checksums.
pub fn is_database(begin: &[u8]) -> bool {
    let Some(header) = begin.get(..HEADER_BYTES) else {
        return false;
    };
    // 1 stands for 65,536 (<https://www.sqlite.org/fileformat2.html#page_size>).
    let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        bytes => usize::from(bytes),
    };
    let is_size = page_bytes >= PAGE_BYTES_MIN as usize && page_bytes.is_power_of_two();
    let Some(page) = begin.get(..page_bytes).filter(|_| is_size) else {
        return false;
    };
    header.starts_with(b"SQLite format 3\0")
        && (header[RESERVED_AT] != RESERVED_BYTES || is_sealed(page, 1))
}

/// Whether the error is that of a page whose checksum is wrong.
pub fn is_refusal(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    code == Some(ffi::SQLITE_IOERR_DATA)
}

/// What was wrong with the page that this thread was refused last.
pub fn refusal() -> String {
    match REFUSED.get() {
        Some(page) => format!("page {page} is not as it was written"),
        None => "a page is not as it was written".to_owned(),
    }
}

/// What SQLite's own examination says of a page that it was refused, with the reason.
pub fn in_words(said: &str) -> String {
    let code = format!("error code={}", ffi::SQLITE_IOERR_DATA);
    said.replace(&code, "its checksum is wrong")
}

fn failure(code: c_int) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
}

/// What the layer stands on.
struct Layer {
    below: *mut ffi::sqlite3_vfs,
    /// Where in an open file's memory the layer's part is.
    guard_at: usize,
}

// SAFETY: SQLite shares what lies below between threads itself, and here it is read only.
unsafe impl Send for Layer {}
// SAFETY: as above.
unsafe impl Sync for Layer {}

/// The layer's part of an open file's memory.
#[repr(C)]
struct Guard {
    methods: ffi::sqlite3_io_methods,
    read: Option<Read>,
    write: Option<Write>,
    truncate: Option<Truncate>,
    is_on: bool,
    /// How often the file was written or cut.
    writes: Cell<u64>,
}

type Read = unsafe extern "C" fn(*mut ffi::sqlite3_file, *mut c_void, c_int, i64) -> c_int;
type Write = unsafe extern "C" fn(*mut ffi::sqlite3_file, *const c_void, c_int, i64) -> c_int;
type Truncate = unsafe extern "C" fn(*mut ffi::sqlite3_file, i64) -> c_int;

/// `None` where SQLite would not have it.
static LAYER: OnceLock<Option<Layer>> = OnceLock::new();

// === impl Layer ===

impl Layer {
    /// The layer, which is registered with SQLite by the first call.
    fn get() -> Option<&'static Layer> {
        LAYER.get_or_init(Layer::register).as_ref()
    }

    fn register() -> Option<Layer> {
        // SAFETY: SQLite initialises itself in this call, and keeps what it finds for ever.
        let (below, as_it_is) = unsafe {
            let below = ffi::sqlite3_vfs_find(std::ptr::null());
            (below, *below.as_ref()?)
        };
        let guard_at = usize::try_from(as_it_is.szOsFile)
            .ok()?
            .next_multiple_of(align_of::<Guard>());
        let own = ffi::sqlite3_vfs {
            szOsFile: c_int::try_from(guard_at + size_of::<Guard>()).ok()?,
            pNext: std::ptr::null_mut(),
            zName: NAME.as_ptr(),
            xOpen: Some(open_file),
            ..as_it_is
        };
        // SAFETY: it is never freed, and from here on SQLite's alone.
        let code = unsafe { ffi::sqlite3_vfs_register(Box::into_raw(Box::new(own)), 0) };
        (code == ffi::SQLITE_OK).then_some(Layer { below, guard_at })
    }

    /// The layer's part of a file that SQLite has given memory for.
    fn guard(&self, file: *mut ffi::sqlite3_file) -> *mut Guard {
        file.wrapping_byte_add(self.guard_at).cast()
    }
}

/// Opens a file as the layer below does, and puts itself before a database's reading and writing.
///
/// # Safety
///
/// SQLite calls it as <https://www.sqlite.org/c3ref/vfs.html> says: `file` has `szOsFile` bytes.
unsafe extern "C" fn open_file(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let Some(layer) = Layer::get() else {
        return ffi::SQLITE_CANTOPEN;
    };
    // SAFETY: the layer below is one of SQLite's own, and gets what SQLite gave.
    unsafe {
        let Some(open) = (*layer.below).xOpen else {
            return ffi::SQLITE_CANTOPEN;
        };
        let code = open(layer.below, name, file, flags, out_flags);
        if code != ffi::SQLITE_OK || flags & ffi::SQLITE_OPEN_MAIN_DB == 0 {
            return code;
        }
        let Some(methods) = (*file).pMethods.as_ref() else {
            return code;
        };
        let guard = layer.guard(file);
        guard.write(Guard {
            methods: ffi::sqlite3_io_methods {
                // Version 3 would let SQLite read pages from a map of the file, past the layer.
                iVersion: methods.iVersion.min(2),
                xRead: Some(read),
                xWrite: Some(write),
                xTruncate: Some(truncate),
                ..*methods
            },
            read: methods.xRead,
            write: methods.xWrite,
            truncate: methods.xTruncate,
            is_on: is_to_be_guarded(methods, file),
            writes: Cell::new(0),
        });
        (*file).pMethods = &raw const (*guard).methods;
        ffi::SQLITE_OK
    }
}

/// Whether a file that was just opened has checksums, or is to have them, since it is new.
///
/// # Safety
///
/// The file is open, and these are its methods.
unsafe fn is_to_be_guarded(
    methods: &ffi::sqlite3_io_methods,
    file: *mut ffi::sqlite3_file,
) -> bool {
    let mut header = [0_u8; HEADER_BYTES];
    let mut bytes = 0;
    // SAFETY: both write what they were given room for.
    let code = unsafe {
        let (Some(size), Some(read)) = (methods.xFileSize, methods.xRead) else {
            return false;
        };
        if size(file, &mut bytes) == ffi::SQLITE_OK && bytes == 0 {
            return true;
        }
        read(file, header.as_mut_ptr().cast(), HEADER_BYTES as c_int, 0)
    };
    let is_ledger = header[APPLICATION] == APPLICATION_ID.to_be_bytes();
    match header[RESERVED_AT] {
        0 => false,
        RESERVED_BYTES => code == ffi::SQLITE_OK,
        // A header that was altered: the first page is going to be refused.
        _ => is_ledger,
    }
}

/// Reads as the layer below does, and refuses a page that is not as it was written.
///
/// # Safety
///
/// SQLite calls it for a file of [`open_file`]; `to` has `amount` bytes.
unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    to: *mut c_void,
    amount: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: the layer wrote the guard when it opened the file; the layer below gets what SQLite
    // gave, and has filled all of it where it says that all is well.
    unsafe {
        let Some(guard) = Layer::get().and_then(|layer| layer.guard(file).as_ref()) else {
            return ffi::SQLITE_IOERR_READ;
        };
        let Some(read) = guard.read else {
            return ffi::SQLITE_IOERR_READ;
        };
        let code = read(file, to, amount, offset);
        let Some(number) = page_number(amount, offset) else {
            return code;
        };
        if code != ffi::SQLITE_OK || !guard.is_on {
            return code;
        }
        let page = std::slice::from_raw_parts(to.cast::<u8>(), amount as usize);
        if is_sealed(page, number) {
            return ffi::SQLITE_OK;
        }
        REFUSED.set(Some(number));
        ffi::SQLITE_IOERR_DATA
    }
}

/// Writes as the layer below does, after it has put a page's checksum.
///
/// # Safety
///
/// SQLite calls it for a file of [`open_file`]; `from` has `amount` bytes, which are a page in
/// SQLite's own memory. Whoever reserves bytes in it may write them: SQLite's own layer for checksums
/// (<https://www.sqlite.org/cksumvfs.html>) does so, too.
unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    amount: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: the layer wrote the guard when it opened the file; see above for the page.
    unsafe {
        let Some(guard) = Layer::get().and_then(|layer| layer.guard(file).as_ref()) else {
            return ffi::SQLITE_IOERR_WRITE;
        };
        let Some(write) = guard.write else {
            return ffi::SQLITE_IOERR_WRITE;
        };
        if let Some(number) = page_number(amount, offset).filter(|_| guard.is_on) {
            let page =
                std::slice::from_raw_parts_mut(from.cast::<u8>().cast_mut(), amount as usize);
            if number == 1 && page[RESERVED_AT] != RESERVED_BYTES {
                // A file in which the layer's bytes are not its own: nothing of it is overwritten.
                return ffi::SQLITE_IOERR_WRITE;
            }
            seal(page, number);
        }
        guard.writes.set(guard.writes.get() + 1);
        write(file, from, amount, offset)
    }
}

/// Cuts as the layer below does.
///
/// # Safety
///
/// SQLite calls it for a file of [`open_file`].
unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, bytes: i64) -> c_int {
    // SAFETY: the layer wrote the guard when it opened the file; the layer below gets what SQLite
    // gave.
    unsafe {
        let Some(guard) = Layer::get().and_then(|layer| layer.guard(file).as_ref()) else {
            return ffi::SQLITE_IOERR_TRUNCATE;
        };
        let Some(truncate) = guard.truncate else {
            return ffi::SQLITE_IOERR_TRUNCATE;
        };
        guard.writes.set(guard.writes.get() + 1);
        truncate(file, bytes)
    }
}

/// The number of the page, from 1, where so many bytes there are one. The parts of the header that
/// SQLite reads by themselves are none.
fn page_number(amount: c_int, offset: i64) -> Option<u64> {
    let is_page = amount >= PAGE_BYTES_MIN && amount.count_ones() == 1;
    let amount = i64::from(amount);
    (is_page && offset % amount == 0).then(|| (offset / amount).unsigned_abs() + 1)
}

/// Puts mark, number and checksum into the page's last bytes.
fn seal(page: &mut [u8], number: u64) {
    let (content, seal) = page.split_at_mut(page.len() - usize::from(RESERVED_BYTES));
    seal.copy_from_slice(&seal_of(content, number));
}

/// Whether the page's last bytes are what [`seal`] put there.
fn is_sealed(page: &[u8], number: u64) -> bool {
    let (content, seal) = page.split_at(page.len() - usize::from(RESERVED_BYTES));
    seal == seal_of(content, number)
}

fn seal_of(content: &[u8], number: u64) -> [u8; RESERVED_BYTES as usize] {
    let mut seal = [0; RESERVED_BYTES as usize];
    // SQLite has at most 2^32 - 2 pages (<https://www.sqlite.org/limits.html>).
    let number = (number as u32).to_be_bytes();
    let mut crc = crc32fast::Hasher::new();
    crc.update(content);
    crc.update(&MARK);
    crc.update(&number);
    seal[..4].copy_from_slice(&MARK);
    seal[4..8].copy_from_slice(&number);
    seal[8..].copy_from_slice(&crc.finalize().to_be_bytes());
    seal
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_altered_page_is_found(
            content in prop::collection::vec(any::<u8>(), 512),
            at in 0..512_usize,
            mask in 1..=255_u8,
            number in 1..5_000_000_u64,
        ) {
            let mut page = content;
            seal(&mut page, number);
            prop_assert!(is_sealed(&page, number));
            prop_assert!(!is_sealed(&page, number + 1));
            page[at] ^= mask;
            prop_assert!(!is_sealed(&page, number));
        }
    }

    #[test]
    fn parts_of_pages_are_none() {
        for (amount, offset, number) in [
            (4096, 0, Some(1)),
            (4096, 8192, Some(3)),
            (512, 1024, Some(3)),
            (100, 0, None),
            (16, 24, None),
            (4096, 100, None),
            (4000, 0, None),
        ] {
            assert_eq!(page_number(amount, offset), number, "{amount} at {offset}");
        }
    }
}
