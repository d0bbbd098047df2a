/* How long a thread that wakes waits for a core on which others always run: what tests/laws/test_processor_sharing.py compares with.

   gcc -O1 -o waking waking.c -lpthread && ./waking HOGS RUN_MS GAP_MS

   HOGS threads never sleep; one sleeps for GAP_MS, half of it more or less, and works for RUN_MS, all on core 0.  What a wake takes
   on an idle core (HOGS = 0) is no wait: subtract it.  RUN_MS above a slice of the scheduler says little, since asking for the
   thread's time makes the kernel look whether its slice is over. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { WAKES = 600, HOGS_MOST = 16 };

static volatile int over = 0;

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

static void stay_on_core_0(void)
{
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(0, &cores);
    pthread_setaffinity_np(pthread_self(), sizeof cores, &cores);
}

static void *hog(void *unused)
{
    stay_on_core_0();
    while (!over) { }
    return unused;
}

int main(int count, char **words)
{
    if (count != 4) {
        fprintf(stderr, "usage: waking HOGS RUN_MS GAP_MS\n");
        return 2;
    }
    int hogs = atoi(words[1]);
    double run_s = atof(words[2]) * 1e-3, gap_s = atof(words[3]) * 1e-3, waited_s = 0.0;
    pthread_t threads[HOGS_MOST];
    unsigned seed = 1;
    if (hogs < 0 || hogs > HOGS_MOST) {
        fprintf(stderr, "HOGS: 0 to %d\n", HOGS_MOST);
        return 2;
    }
    for (int i = 0; i < hogs; i++)
        pthread_create(&threads[i], NULL, hog, NULL);
    stay_on_core_0();
    for (int i = 0; i < WAKES; i++) {
        double due_s = seconds(CLOCK_MONOTONIC) + gap_s * (0.5 + rand_r(&seed) % 1000 / 1000.0);
        struct timespec due = {(time_t)due_s, (long)((due_s - (time_t)due_s) * 1e9)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
        waited_s += seconds(CLOCK_MONOTONIC) - due_s;
        double began_s = seconds(CLOCK_THREAD_CPUTIME_ID);
        while (seconds(CLOCK_THREAD_CPUTIME_ID) - began_s < run_s) { }
    }
    over = 1;
    for (int i = 0; i < hogs; i++)
        pthread_join(threads[i], NULL);
    printf("%d hogs, runs of %g ms, gaps of %g ms: waits %.3f ms\n", hogs, run_s * 1e3, gap_s * 1e3, waited_s / WAKES * 1e3);
    return 0;
}
