/* The stand-in's self-test: runs every case in a forked process, since most end with SIGABRT. */
#include "selftest.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static struct test *tests;

void selftest_add(struct test *test)
{
    test->next = tests;
    tests = test;
}

id<MTLDevice> a_device(void)
{
    @autoreleasepool {
        return MTLCreateSystemDefaultDevice();
    }
}

id<MTLBuffer> a_buffer(NSUInteger length)
{
    @autoreleasepool {
        id<MTLDevice> device = a_device();
        id<MTLBuffer> buffer = [device newBufferWithLength:length options:SHARED];
        [device release];
        return buffer;
    }
}

id<MTLResidencySet> a_set(void)
{
    @autoreleasepool {
        id<MTLDevice> device = a_device();
        MTLResidencySetDescriptor *descriptor = [[MTLResidencySetDescriptor alloc] init];
        descriptor.label = @"a set";
        NSError *error = nil;
        id<MTLResidencySet> set = [device newResidencySetWithDescriptor:descriptor error:&error];
        [descriptor release];
        [device release];
        return set;
    }
}

/* Runs one case, collects what it says, and tells how it ended. */
static int run(const struct test *test, char *said, size_t size)
{
    int ends[2], status = 0;
    size_t used = 0;
    ssize_t got;
    if (pipe(ends) != 0)
        abort();
    pid_t child = fork();
    if (child == 0) {
        struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        alarm(20);
        test->run();
        exit(0);
    }
    close(ends[1]);
    while (used < size - 1 && (got = read(ends[0], said + used, size - 1 - used)) > 0)
        used += (size_t)got;
    said[used] = 0;
    close(ends[0]);
    waitpid(child, &status, 0);
    return status;
}

/* A rule that begins with "exit 99:" ends in that status. */
static bool as_expected(const struct test *test, int status, const char *said)
{
    static const char leaks[] = "exit 99: ";
    if (!test->rule)
        return status == 0 && !*said;
    if (strncmp(test->rule, leaks, sizeof leaks - 1) == 0)
        return WIFEXITED(status) && WEXITSTATUS(status) == 99 &&
               strstr(said, test->rule + sizeof leaks - 1);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && strstr(said, test->rule);
}

int main(int count, char **only)
{
    int run_in_all = 0, failed = 0;
    for (struct test *test = tests; test; test = test->next) {
        char said[4096];
        if (count > 1 && strcmp(only[1], test->name) != 0)
            continue;
        int status = run(test, said, sizeof said);
        run_in_all++;
        if (count > 1)
            fputs(said, stdout);
        if (as_expected(test, status, said))
            continue;
        failed++;
        printf("FAILED %s: status 0x%x, expected %s, said:\n%s\n", test->name, (unsigned)status,
               test->rule ? test->rule : "nothing", said);
    }
    printf("%d cases, %d failed\n", run_in_all, failed);
    return failed != 0 || run_in_all == 0;
}
