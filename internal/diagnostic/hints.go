package diagnostic

import "regexp"

// Hint is what there is to know about an error that ports to the Hurd have in
// common.
type Hint struct {
	Text string // what to do, in a sentence or two
	URL  string // where to read on
}

// guidelines is the Hurd project's page on porting.
const guidelines = "https://www.gnu.org/software/hurd/hurd/porting/guidelines.html"

// portingHint is a row of the table: an error that says that a name is not
// there, and the name is one of these.
type portingHint struct {
	names *regexp.Regexp
	Hint
}

// absent is how compilers say that something is not declared, or not there.
var absent = regexp.MustCompile(`(?i)undeclared|not declared|implicit declaration|undefined|cannot find|not found|no such file|unresolved`)

func (h portingHint) matches(message string) bool {
	return absent.MatchString(message) && h.names.MatchString(message)
}

// porting is the table. Add a row for what a port has stumbled upon.
var porting = []portingHint{
	{regexp.MustCompile(`\b(PATH_MAX|MAXPATHLEN|MAX_PATH)\b`), Hint{
		"The Hurd has no limit on the length of a path, so PATH_MAX and MAXPATHLEN do not exist there: let realpath(name, NULL) and getcwd(NULL, 0) allocate, or grow a buffer.", guidelines}},
	{regexp.MustCompile(`\b(MAXHOSTNAMELEN|HOST_NAME_MAX)\b`), Hint{
		"The Hurd has no limit on the length of a host name, so MAXHOSTNAMELEN and HOST_NAME_MAX do not exist there: grow a buffer until gethostname fits.", guidelines}},
	{regexp.MustCompile(`\b(IOV_MAX|UIO_MAXIOV)\b`), Hint{
		"The Hurd has no limit on the vectors of readv and writev, so IOV_MAX and UIO_MAXIOV do not exist there: ask sysconf(_SC_IOV_MAX), where -1 means none.", guidelines}},
	{regexp.MustCompile(`\b(ARG_MAX|NCARGS|OPEN_MAX|NOFILE|CHILD_MAX|PIPE_BUF|LINK_MAX|SYMLOOP_MAX|MAXSYMLINKS)\b`), Hint{
		"POSIX lets a system leave out the limits that it does not have, and the Hurd has few: ask sysconf or pathconf, where -1 means none.", guidelines}},
	{regexp.MustCompile(`\b(linux|asm)/[\w/-]+\.h\b`), Hint{
		"The headers linux/*.h and asm/*.h are the Linux kernel's: keep what needs them inside #ifdef __linux__. The Hurd is __GNU__.", guidelines}},
	{regexp.MustCompile(`\b(sys/)?(epoll|inotify|fanotify|signalfd|timerfd|prctl)(_\w+|\.h)?\b`), Hint{
		"This interface is Linux's own: keep it inside #ifdef __linux__ and use what POSIX has (poll, sigwait, timer_create) elsewhere.", guidelines}},
}
