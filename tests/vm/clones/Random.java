import java.security.SecureRandom;
import java.util.UUID;
import java.util.concurrent.ThreadLocalRandom;

/** Prints random numbers from each source that Java has. */
public class Random {
    public static void main(String[] arguments) {
        System.out.println(new SecureRandom().nextLong() + " " + UUID.randomUUID() + " " + new java.util.Random().nextLong() + " "
            + ThreadLocalRandom.current().nextLong() + " " + Math.random());
    }
}
