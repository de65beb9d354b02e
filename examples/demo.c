/* The demo: distributed training of a small network over three workers, in C, with nothing but gradferry.h.
 *
 *   gradferry-demo [--transport NAME] [--epochs N] [--seed N] [--data DIR]
 *
 * This file is the command: it starts the roles (trainer.c, stage.c) as processes of their own, waits for them, and
 * cleans up, whatever happens to them. With --transport sim, whose network exists within one process, it starts one
 * process with all three. Every process is this same program, started anew: after fork only exec is allowed with
 * Gradferry, and the roles find each other by a file in a folder that is made for the run. */
#define _GNU_SOURCE

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <threads.h>
#include <unistd.h>

#include "roles.h"

enum { USAGE_STATUS = 2, NOT_STARTED_STATUS = 127, MOST_CHILDREN = 3, USUAL_EPOCHS = 30 };

static const char usage[] =
    "Usage: gradferry-demo [OPTIONS]\n"
    "\n"
    "Trains a network for handwritten digits whose layers live in two processes, from a third\n"
    "one. Fails unless the gradients are those of a single process, the test accuracy reaches\n"
    "95 % and the time stays below 60 s.\n"
    "\n"
    "  --transport NAME   the transport between the workers: tensorpipe (the default), or sim,\n"
    "                     with which all workers live in one process\n"
    "  --epochs N         how often to go through the training data; 30\n"
    "  --seed N           of the first parameters and of the order of the data; 1\n"
    "  --data DIR         the folder with train.csv and test.csv;\n"
    "                     $GRADFERRY_DEMO_DATA/digits, or examples/data/digits\n"
    "  --help             this text\n";

/* ---- The command line -------------------------------------------------------------------------------------------- */

_Noreturn static void wrong_usage(const char* what, const char* which) {
  fprintf(stderr, "gradferry-demo: %s%s\n\n%s", what, which, usage);
  exit(USAGE_STATUS);
}

static long long number(const char* option, const char* text, long long least, long long most) {
  char* end;
  errno = 0;
  long long value = strtoll(text, &end, 10);
  if (*text == '\0' || *end != '\0' || errno != 0 || value < least || value > most) {
    char wanted[96];
    snprintf(wanted, sizeof(wanted), "%s wants a number from %lld to %lld, got ", option, least, most);
    wrong_usage(wanted, text);
  }
  return value;
}

static const char* default_data(void) {
  static char folder[PATH_MAX];
  const char* base = getenv("GRADFERRY_DEMO_DATA");
  snprintf(folder, sizeof(folder), "%s/digits", base != NULL && *base != '\0' ? base : "examples/data");
  return folder;
}

static struct settings parse(int argc, char** argv) {
  struct settings settings = {.transport = "tensorpipe", .epochs = USUAL_EPOCHS, .seed = 1};
  settings.data = default_data();
  for (int i = 1; i < argc; ++i) {
    const char* option = argv[i];
    if (strcmp(option, "--help") == 0) {
      fputs(usage, stdout);
      exit(0);
    }
    static const char* const known[] = {"--transport", "--epochs", "--seed", "--data", "--role", "--folder"};
    int is_known = 0;
    for (size_t k = 0; k < sizeof(known) / sizeof(known[0]); ++k) is_known |= strcmp(option, known[k]) == 0;
    if (!is_known) wrong_usage("unknown option ", option);
    if (i + 1 == argc) wrong_usage("a value is missing after ", option);
    const char* value = argv[++i];
    if (strcmp(option, "--transport") == 0) settings.transport = value;
    if (strcmp(option, "--epochs") == 0) settings.epochs = (int)number(option, value, 1, 100000);
    if (strcmp(option, "--seed") == 0) settings.seed = (uint64_t)number(option, value, 0, LLONG_MAX / 8);
    if (strcmp(option, "--data") == 0) settings.data = value;
    /* These two are for the processes that the command starts. */
    if (strcmp(option, "--role") == 0) settings.role = value;
    if (strcmp(option, "--folder") == 0) settings.folder = value;
  }
  return settings;
}

/* ---- A role ------------------------------------------------------------------------------------------------------ */

static int stage1_thread(void* settings) { return run_stage(settings, STAGE1_RANK), 0; }
static int stage2_thread(void* settings) { return run_stage(settings, STAGE2_RANK), 0; }

static void run_all_in_this_process(struct settings* settings) {
  thrd_t stage1, stage2;
  if (thrd_create(&stage1, stage1_thread, settings) != thrd_success ||
      thrd_create(&stage2, stage2_thread, settings) != thrd_success) {
    die("cannot start a thread");
  }
  run_trainer(settings);
  thrd_join(stage1, NULL);
  thrd_join(stage2, NULL);
}

static int run_role(struct settings* settings) {
  if (strcmp(settings->role, "trainer") == 0) {
    run_trainer(settings);
  } else if (strcmp(settings->role, "stage1") == 0) {
    run_stage(settings, STAGE1_RANK);
  } else if (strcmp(settings->role, "stage2") == 0) {
    run_stage(settings, STAGE2_RANK);
  } else if (strcmp(settings->role, "workers") == 0) {
    run_all_in_this_process(settings);
  } else {
    wrong_usage("unknown role ", settings->role);
  }
  check_nothing_is_left();
  return 0;
}

/* ---- The command: starting the roles ----------------------------------------------------------------------------- */

struct child {
  const char* role;
  volatile pid_t pid; /* 0 when it does not run */
};

/* Read by the signal handler. */
static struct child children[MOST_CHILDREN];
static volatile sig_atomic_t stopped_by; /* the signal that ended the demo, or 0 */

static void kill_children(int sig) {
  for (int i = 0; i < MOST_CHILDREN; ++i) {
    if (children[i].pid > 0) kill(children[i].pid, sig);
  }
}

/* The waiting below ends when the children do, so that no signal is missed between two looks at a flag. */
static void on_signal(int sig) {
  stopped_by = sig;
  kill_children(SIGKILL);
}

static const int handled_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGALRM};

static void handle_signals(void (*handler)(int)) {
  struct sigaction action = {.sa_handler = handler};
  for (size_t i = 0; i < sizeof(handled_signals) / sizeof(handled_signals[0]); ++i) {
    sigaction(handled_signals[i], &action, NULL);
  }
}

/* Becomes a role. Runs in the child, where only exec is allowed, and comes back from it never. */
_Noreturn static void become_role(char** arguments, const sigset_t* signals, pid_t parent) {
  handle_signals(SIG_DFL);
  sigprocmask(SIG_SETMASK, signals, NULL);
  /* When the command is killed without a chance to clean up, no role must stay behind. */
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() == parent) execv("/proc/self/exe", arguments);
  _exit(NOT_STARTED_STATUS);
}

/* Starts this program again with its own arguments and two more; gives 1 when that worked. */
static int start(struct child* child, int argc, char** argv, const char* role, const char* folder) {
  char** arguments = calloc((size_t)argc + 5, sizeof(char*));
  if (arguments == NULL) return 0;
  memcpy(arguments, argv, (size_t)argc * sizeof(char*));
  arguments[argc] = "--role";
  arguments[argc + 1] = (char*)role;
  arguments[argc + 2] = "--folder";
  arguments[argc + 3] = (char*)folder;

  /* A signal between fork and the note of the pid would miss the child. */
  sigset_t all, before;
  sigfillset(&all);
  sigprocmask(SIG_BLOCK, &all, &before);
  pid_t parent = getpid();
  pid_t pid = fork();
  if (pid == 0) become_role(arguments, &before, parent);
  if (pid < 0) fprintf(stderr, "demo: cannot start %s: %s\n", role, strerror(errno));
  child->role = role;
  child->pid = pid > 0 ? pid : 0;
  sigprocmask(SIG_SETMASK, &before, NULL);
  free(arguments);
  /* One that came earlier has killed the others only. */
  if (stopped_by != 0) kill_children(SIGKILL);
  return pid > 0;
}

/* ---- The command: waiting for them ------------------------------------------------------------------------------- */

/* Waits for a child that ends and says how, unless it ended well or by our own hand. Gives 1 for a good end, 0 for a
 * bad one, -1 when none was there to be waited for. */
static int wait_for_one(int options, int killing) {
  int status;
  pid_t pid;
  do {
    pid = waitpid(-1, &status, options);
  } while (pid < 0 && errno == EINTR);
  if (pid <= 0) return -1;
  const char* role = "a child";
  for (int i = 0; i < MOST_CHILDREN; ++i) {
    if (children[i].pid != pid) continue;
    role = children[i].role;
    children[i].pid = 0;
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return 1;
  if (WIFSIGNALED(status) && !killing && stopped_by == 0) {
    fprintf(stderr, "demo: %s was killed by signal %d (%s)\n", role, WTERMSIG(status), strsignal(WTERMSIG(status)));
  }
  if (WIFEXITED(status) && !killing) {
    /* It has said why, unless it never came to run. */
    fprintf(stderr, "demo: %s %s\n", role, WEXITSTATUS(status) == NOT_STARTED_STATUS ? "cannot be started" : "failed");
  }
  return 0;
}

/* Waits until all children have ended; the first that ends badly ends the others. Gives 1 when all ended well. */
static int wait_for_all(void) {
  int good = 1;
  for (int ended; (ended = wait_for_one(0, 0)) >= 0;) {
    if (ended == 1) continue;
    good = 0;
    /* Whoever has ended by now did so by itself, and may be the cause: it is named too. */
    while (wait_for_one(WNOHANG, 0) >= 0) {
    }
    kill_children(SIGKILL);
    while (wait_for_one(0, 1) >= 0) {
    }
  }
  return good;
}

/* The folder of the run holds plain files only. */
static void remove_folder(const char* folder) {
  DIR* directory = opendir(folder);
  if (directory == NULL) return;
  for (struct dirent* entry; (entry = readdir(directory)) != NULL;) {
    char path[PATH_MAX];
    if (snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name) < (int)sizeof(path)) unlink(path);
  }
  closedir(directory);
  rmdir(folder);
}

static int seconds_allowed(const struct settings* settings) {
  return settings->epochs <= USUAL_EPOCHS ? 60 : 2 * settings->epochs;
}

static int run_command(const struct settings* settings, int argc, char** argv) {
  static const char* const processes[] = {"stage1", "stage2", "trainer", NULL};
  static const char* const one_process[] = {"workers", NULL};
  const char* const* roles = strcmp(settings->transport, "sim") == 0 ? one_process : processes;

  double begun = now();
  char folder[PATH_MAX];
  const char* temporary = getenv("TMPDIR");
  snprintf(folder, sizeof(folder), "%s/gradferry-demo-XXXXXX",
           temporary != NULL && *temporary == '/' ? temporary : "/tmp");
  handle_signals(on_signal);
  if (mkdtemp(folder) == NULL) {
    fprintf(stderr, "demo: cannot make the folder %s: %s\n", folder, strerror(errno));
    return 1;
  }
  /* The workers share this machine's cores: each computes on one thread, unless told otherwise. */
  setenv("OMP_NUM_THREADS", "1", 0);

  alarm((unsigned)seconds_allowed(settings) + 1);
  int started = 1;
  for (int i = 0; started && roles[i] != NULL; ++i) started = start(&children[i], argc, argv, roles[i], folder);
  if (!started) kill_children(SIGKILL);
  int good = wait_for_all() && started;
  remove_folder(folder);

  double seconds = now() - begun;
  if (stopped_by == SIGALRM || (good && seconds > seconds_allowed(settings))) {
    fprintf(stderr, "demo: not done after %.0f s; less than %d s are wanted\n", seconds, seconds_allowed(settings));
    return 1;
  }
  if (stopped_by != 0) {
    /* Ends as the signal would have ended us, for whoever waits for us. */
    handle_signals(SIG_DFL);
    raise(stopped_by);
  }
  if (good) printf("done in %.1f s\n", seconds);
  return good ? 0 : 1;
}

int main(int argc, char** argv) {
  struct settings settings = parse(argc, argv);
  return settings.role != NULL ? run_role(&settings) : run_command(&settings, argc, argv);
}
