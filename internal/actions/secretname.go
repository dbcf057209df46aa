package actions

import "strings"

// secretWords make a variable a secret by its name, whatever stands around them.
// Longer names that hold one are harmless when they end with a harmlessEnd.
var secretWords = []string{
	"TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL",
	"APIKEY", "API_KEY", "PRIVATE_KEY", "PRIVKEY", "ACCESS_KEY", "AUTH_KEY", "DEPLOY_KEY",
	"ENCRYPTION_KEY", "SIGNING_KEY", "SSH_KEY", "GPG_KEY", "ACCOUNT_KEY", "SERVICE_KEY",
	"AUTHORIZATION", "BEARER", "COOKIE",
}

// secretEnds are secrets only as the last word of a name.
var secretEnds = []string{"PASS", "PAT", "PWD", "PIN", "DSN", "AUTH", "WEBHOOK", "WEBHOOK_URL", "DATABASE_URL", "CONNECTION_STRING"}

// harmlessEnds are words that make something about a secret of it, such as
// TOKEN_FILE or MAX_TOKENS.
var harmlessEnds = []string{
	"FILE", "PATH", "DIR", "URL", "URI", "ENDPOINT", "HOST", "NAME", "TYPE", "HEADER", "TOKENS", "TOKENIZER",
	"LENGTH", "LEN", "SIZE", "COUNT", "LIMIT", "MIN", "MAX", "TTL", "EXPIRY", "TIMEOUT", "ENABLED", "REQUIRED", "VERSION",
}

// LooksSecret tells whether a variable with this name is likely to hold a
// secret: GH_TOKEN, dbPassword, AWS_SECRET_ACCESS_KEY. Nobody else can tell: the
// runner knows which values are secret and does not say. PWD is the directory.
func LooksSecret(name string) bool {
	name = strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
	isLast := func(word string) bool { return name == word || strings.HasSuffix(name, "_"+word) }
	for _, word := range secretEnds {
		if isLast(word) && name != "PWD" && name != "OLD_PWD" && name != "OLDPWD" {
			return true
		}
	}
	for _, word := range harmlessEnds {
		if isLast(word) {
			return false
		}
	}
	for _, word := range secretWords {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}
